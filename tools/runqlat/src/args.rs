//! The command line of runqlat.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use common::cli::{Every, Shared};
use common::filter::Wanted;
use common::hist::Unit;
use common::span;
use common::start::Target;

/// How long runnable threads wait for a CPU, as histograms
///
/// A wait begins when a thread is put on a run queue: it is woken, or it is switched out while it could
/// go on. It ends when the thread is switched in. Time asleep is not in it, and the idle task never waits.
#[derive(Parser, Debug)]
#[command(name = "runqlat", version, after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub every: Every,

    /// The time before each report
    #[arg(short = 'T', long)]
    pub timestamp: bool,
    /// Milliseconds instead of microseconds
    #[arg(short, long)]
    pub milliseconds: bool,
    /// Nanoseconds instead of microseconds
    #[arg(long = "ns", conflicts_with = "milliseconds")]
    pub nanoseconds: bool,
    /// Only the N sections with the most waiting time; the others as one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub top: Option<u64>,
    /// No histogram, but a row for each wait of at least this; a bare number is in microseconds
    #[arg(long, value_name = "TIME", value_parser = span::micros,
          conflicts_with_all = ["interval", "count", "by", "pids", "tids", "pidnss", "milliseconds", "nanoseconds"])]
    pub slower: Option<Duration>,

    /// One histogram for each
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "Histograms", group = "kept")]
    pub by: Option<By>,
    /// One histogram for each process (--by pid)
    #[arg(short = 'P', long, help_heading = "Histograms", group = "kept")]
    pub pids: bool,
    /// One histogram for each thread (--by tid)
    #[arg(short = 'L', long, help_heading = "Histograms", group = "kept")]
    pub tids: bool,
    /// One histogram for each PID namespace (--by pidns)
    #[arg(long, help_heading = "Histograms", group = "kept")]
    pub pidnss: bool,

    /// These processes
    #[arg(short, long, value_name = "PID", value_delimiter = ',', help_heading = "Filters",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,
    /// These threads
    #[arg(short, long, value_name = "TID", value_delimiter = ',', help_heading = "Filters",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub tid: Vec<u32>,
    /// Threads with this text in their name
    #[arg(short = 'n', long, value_name = "TEXT", help_heading = "Filters")]
    pub comm: Option<String>,
    /// Threads in this cgroup (v2) or below it; may be given several times
    #[arg(short, long, value_name = "PATH", help_heading = "Filters")]
    pub cgroup: Vec<PathBuf>,
    /// Run a command, trace it and its children, and end with it
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    #[command(flatten)]
    pub shared: Shared,
}

const EXAMPLES: &str = "Examples:
  runqlat                   until Ctrl-C, then one histogram of all waits
  runqlat 1 10              ten histograms, one a second
  runqlat -p 1234 --by tid  each thread of a process
  runqlat -c system.slice   a cgroup and all below it
  runqlat --slower 10ms     who waited longer, for which reason, and who ran before
  runqlat -- make -j8       a command and its children";

/// What one histogram is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// woken, or preempted
    Why,
    Cpu,
    Cgroup,
    Pid,
    Tid,
    Pidns,
}

impl Args {
    pub fn by(&self) -> Option<By> {
        match self {
            Args { pids: true, .. } => Some(By::Pid),
            Args { tids: true, .. } => Some(By::Tid),
            Args { pidnss: true, .. } => Some(By::Pidns),
            _ => self.by,
        }
    }

    pub fn unit(&self) -> Unit {
        match self {
            Args { milliseconds: true, .. } => Unit::Msecs,
            Args { nanoseconds: true, .. } => Unit::Nsecs,
            _ => Unit::Usecs,
        }
    }

    pub fn target(&self) -> Target<'_> {
        let wanted = Wanted {
            pids: self.pid.clone(),
            tids: self.tid.clone(),
            comm: self.comm.clone(),
            ..Wanted::default()
        };
        Target { wanted, cgroups: &self.cgroup, command: &self.command }
    }
}
