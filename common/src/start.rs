//! What every run begins with, in the one order that works: what the user got wrong is found before the command
//! is forked, signals are held back before that, and the command waits at its gate until all is attached.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use crate::cgroup::{self, Cgroup};
use crate::child::Child;
use crate::cli::{self, Shared};
use crate::filter::Wanted;
use crate::hook::{self, Hook, Ladder};
use crate::kernel::Kernel;
use crate::tick::Signals;

/// Whom a tool is asked to observe.
pub struct Target<'a> {
    /// Without cgroups and command, which are found here.
    pub wanted: Wanted,
    pub cgroups: &'a [PathBuf],
    pub command: &'a [OsString],
}

/// All that is known before the programs are opened.
pub struct Start {
    pub kernel: Kernel,
    pub ladder: Ladder,
    pub cgroups: Vec<Cgroup>,
    pub wanted: Wanted,
    pub signals: Signals,
    pub child: Option<Child>,
}

impl Start {
    /// `needed`: which of the hooks this run needs. With `--check` the ladder is printed.
    ///
    /// # Errors
    /// The kernel cannot be observed so, or what is wanted is not there; each with its exit code.
    pub fn new(
        shared: &Shared,
        hooks: &[Hook],
        needed: impl Fn(&Hook) -> bool,
        target: Target<'_>,
    ) -> Result<Start> {
        hook::check_probe(hooks, shared.probe.as_deref())?;
        let kernel = Kernel::probe(shared.btf.as_deref())?;
        let ladder = Ladder::climb(&kernel, hooks, shared.probe.as_deref(), needed);
        if shared.check {
            cli::check(&ladder)?;
        }
        ladder.require()?;
        let cgroups = target.cgroups.iter().map(cgroup::resolve).collect::<Result<Vec<Cgroup>>>()?;
        let signals = Signals::block()?;
        let child = match target.command {
            [] => None,
            command => Some(Child::spawn(command)?),
        };
        let wanted = Wanted {
            cgroups: cgroups.iter().map(|group| group.id).collect(),
            command: child.as_ref().map(Child::pid),
            ..target.wanted
        };
        wanted.check(&kernel)?;
        Ok(Start { kernel, ladder, cgroups, wanted, signals, child })
    }
}
