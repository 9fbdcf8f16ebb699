//! Exit codes, the same in every tool; docs/OUTPUT.md lists them.

use std::fmt;
use std::io;

/// Why a tool ends with something else than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Something failed that should have worked.
    Failed = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// This kernel or this hardware cannot be observed that way.
    Unsupported = 3,
    /// A capability is missing, or a policy forbids it.
    Privilege = 4,
    /// `--strict`, and something was lost.
    Lost = 5,
}

/// An error that knows its exit code. Any other error is [`Kind::Failed`].
#[derive(Debug)]
pub struct Fault {
    kind: Kind,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// An error of this kind; the message names the thing, the cause and the cure.
pub fn fault(kind: Kind, message: impl Into<String>) -> anyhow::Error {
    Fault { kind, message: message.into() }.into()
}

/// What to do about an error that reached the end of `run`.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The reader has gone (`| head`): a normal end, without a word.
    Quiet,
    Report(Kind),
}

#[must_use]
pub fn verdict(error: &anyhow::Error) -> Verdict {
    for cause in error.chain() {
        if let Some(fault) = cause.downcast_ref::<Fault>() {
            return Verdict::Report(fault.kind);
        }
        let broken = cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe);
        if broken {
            return Verdict::Quiet;
        }
    }
    Verdict::Report(Kind::Failed)
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn the_kind_is_found_below_any_context() {
        let error = Err::<(), _>(fault(Kind::Privilege, "no CAP_BPF")).context("cannot start").unwrap_err();
        assert_eq!(verdict(&error), Verdict::Report(Kind::Privilege));
        assert_eq!(verdict(&anyhow!("other")), Verdict::Report(Kind::Failed));
    }

    #[test]
    fn a_closed_pipe_is_a_normal_end() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("stdout");
        assert_eq!(verdict(&error), Verdict::Quiet);
    }
}
