//! The command line that all tools share, and the one place that prints errors and picks the exit code.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{CommandFactory, Parser};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::docs::{self, Generate};
use crate::exit::{Kind, Verdict, fault, verdict};
use crate::hook::Ladder;
use crate::span;

/// Options of every tool.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub struct Shared {
    /// One JSON object a line (docs/OUTPUT.md)
    #[arg(long)]
    pub json: bool,
    /// Say on stderr which hooks are used and what was counted
    #[arg(short, long)]
    pub verbose: bool,
    /// End with exit code 5 if an event was lost
    #[arg(long)]
    pub strict: bool,
    /// Say how this kernel would be observed and what would be missed, and end
    #[arg(long)]
    pub check: bool,
    /// Read the types of this very kernel from a file, where it has none itself (/sys/kernel/btf/vmlinux)
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,
    /// Observe this way only, for tests: tp_btf, raw_tp
    #[arg(long, hide = true, value_name = "WAY")]
    pub probe: Option<String>,
    /// Write a line to this descriptor once everything is attached
    #[arg(long, hide = true, value_name = "FD")]
    pub ready_fd: Option<RawFd>,
    /// Print a man page or a shell completion
    #[arg(long, hide = true, value_name = "WHAT")]
    pub generate: Option<Generate>,
}

/// `[interval] [count]`, as the peers have them, and a length.
#[derive(clap::Args, Clone, Debug)]
pub struct Every {
    /// Print every so often: seconds, or 500ms, 2s, 1m
    #[arg(value_parser = span::seconds)]
    pub interval: Option<Duration>,
    /// End after this many intervals
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// End after this time
    #[arg(short, long, value_name = "TIME", value_parser = span::seconds)]
    pub duration: Option<Duration>,
}

/// Parses, runs, reports. `shared` finds the common options in a tool's own.
pub fn start<A: Parser + CommandFactory>(
    shared: impl Fn(&A) -> &Shared,
    run: impl FnOnce(&A) -> Result<ExitCode>,
) -> ExitCode {
    let mut command = A::command().infer_long_args(true).max_term_width(100);
    let tool = command.get_name().to_owned();
    let parsed = command.try_get_matches_from_mut(std::env::args_os()).and_then(|m| A::from_arg_matches(&m));
    let args = match parsed {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            eprintln!("{tool}: {} (see {tool} --help)", one_line(&error.to_string()));
            return ExitCode::from(Kind::Usage as u8);
        }
        // --help and --version. A closed pipe is no error.
        Err(help) => {
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    let common = shared(&args);
    let result = match (common.generate, common.ready_fd.map_or(Ok(()), own_descriptor)) {
        (_, Err(error)) => Err(error),
        (Some(what), _) => {
            docs::generate(what, command, &mut io::stdout().lock()).map(|()| ExitCode::SUCCESS)
        }
        (None, _) => run(&args),
    };
    result.unwrap_or_else(|error| match verdict(&error) {
        Verdict::Quiet => ExitCode::SUCCESS,
        Verdict::Report(kind) => {
            eprintln!("{tool}: {error:#}");
            ExitCode::from(kind as u8)
        }
    })
}

/// The first paragraph of clap's message, on one line: the rest is tips and usage.
fn one_line(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let first = message.split("\n\n").next().unwrap_or(message);
    first.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An argument that makes no sense, found after parsing. Names the flag and the value.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    fault(Kind::Usage, message)
}

/// `--check`: prints the ladder. The tool then goes on as for a run and ends once the kernel has taken its
/// programs, with the settings of this call: what the ladder says would be worth nothing if it did not.
///
/// # Errors
/// A hook that is needed has no way.
pub fn check(ladder: &Ladder) -> Result<()> {
    use io::Write as _;
    io::stdout().lock().write_all(ladder.report().as_bytes())?;
    ladder.require()
}

/// The descriptor exists, and a command that is traced does not inherit it.
fn own_descriptor(fd: RawFd) -> Result<()> {
    let bad = || usage(format!("--ready-fd {fd}: no such descriptor"));
    if fd < 0 {
        return Err(bad());
    }
    // SAFETY: only looked at; fcntl itself says whether it is open.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map(|_| ()).map_err(|_| bad())
}

impl Shared {
    /// Everything is attached and the clock runs: says so to whoever waits for it.
    ///
    /// # Errors
    /// The descriptor of `--ready-fd` cannot be written.
    pub fn ready(&self, tool: &str, ladder: &Ladder) -> Result<()> {
        if self.verbose {
            let used: Vec<String> =
                ladder.used().iter().map(|(what, way)| format!("{what} by {way}")).collect();
            eprintln!("{tool}: tracing: {}", used.join(", "));
        }
        if let Some(fd) = self.ready_fd {
            // SAFETY: the caller of the tool handed this descriptor over to be written once and closed.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            nix::unistd::write(&fd, b"ready\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser)]
    #[command(name = "tool", version)]
    struct Args {
        #[command(flatten)]
        every: Every,
        #[command(flatten)]
        shared: Shared,
    }

    fn refused(words: &[&str]) -> String {
        let words = ["tool"].iter().chain(words);
        one_line(&Args::try_parse_from(words).err().expect("it was taken").to_string())
    }

    #[test]
    fn a_usage_error_is_one_line_that_names_value_and_argument() {
        let text = refused(&["abc"]);
        assert_eq!(text, "invalid value 'abc' for '[INTERVAL]': not a duration such as 0.5, 500ms, 2s or 1m");
        assert_eq!(refused(&["1", "0"]), "invalid value '0' for '[COUNT]': 0 is not in 1..=4294967295");
        assert_eq!(refused(&["--frob"]), "unexpected argument '--frob' found");
    }

    #[test]
    fn options_may_follow_positionals() {
        let args = Args::try_parse_from(["tool", "0.5", "3", "-v"]).unwrap();
        assert_eq!((args.every.interval, args.every.count), (Some(Duration::from_millis(500)), Some(3)));
        assert!(args.shared.verbose);
    }
}
