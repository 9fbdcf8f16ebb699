//! The command line of offcputime.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use common::cli::{Every, Shared, usage};
use common::filter::Wanted;
use common::span;
use common::start::Target;

use crate::size::{self, Budget};
use crate::state::{self, States};

/// Where threads wait, and how long, by stack
///
/// A wait is the time from a thread's switch-out to its switch-in: what it blocked for, and its wait for a
/// CPU after that. Threads that could have gone on are left out (--preempted). Threads that are blocked
/// when the run ends are there with the time they have been by then.
#[derive(Parser, Debug)]
#[command(name = "offcputime", version, after_help = EXAMPLES)]
pub struct Args {
    /// End after this time: seconds, or 500ms, 2s, 1m
    #[arg(value_parser = span::seconds, value_name = "DURATION")]
    pub duration: Option<Duration>,
    /// Report every so often, and start anew
    #[arg(short, long, value_name = "TIME", value_parser = span::seconds)]
    pub interval: Option<Duration>,
    /// The waits of threads that could have gone on, too, under [preempted]
    #[arg(long)]
    pub preempted: bool,
    /// Who woke the thread up: its name and stack below that of the wait
    #[arg(long)]
    pub waker: bool,

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
    /// User threads
    #[arg(short = 'u', long, help_heading = "Filters", conflicts_with = "kernel_threads_only")]
    pub user_threads_only: bool,
    /// Kernel threads
    #[arg(short = 'k', long, help_heading = "Filters")]
    pub kernel_threads_only: bool,
    /// Waits of at least this; a bare number is in microseconds
    #[arg(short, long, value_name = "TIME", value_parser = span::micros, help_heading = "Filters")]
    pub min_block_time: Option<Duration>,
    /// Waits of at most this; a bare number is in microseconds
    #[arg(short = 'M', long, value_name = "TIME", value_parser = span::micros, help_heading = "Filters")]
    pub max_block_time: Option<Duration>,
    /// Threads that left their CPU in these states: letters of S D K I T t P R (R: runnable), or a bit mask
    /// as in the kernel (1: S, 2: D K I, 4: T, 8: t, 0: R)
    #[arg(long, value_name = "STATES", value_parser = state::parse, help_heading = "Filters")]
    pub state: Option<States>,
    /// Run a command, trace it and its children, and end with it
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    /// Only user stacks
    #[arg(short = 'U', long, help_heading = "Stacks",
          conflicts_with_all = ["kernel_stacks_only", "kernel_threads_only"])]
    pub user_stacks_only: bool,
    /// Only kernel stacks
    #[arg(short = 'K', long, help_heading = "Stacks")]
    pub kernel_stacks_only: bool,
    /// Every wait by its own stack, also those shorter than the quantum
    #[arg(long, help_heading = "Stacks", conflicts_with = "quantum")]
    pub exact: bool,
    /// Waits shorter than this are pooled by thread, and a stack is drawn for each so much of them
    #[arg(long, value_name = "TIME", value_parser = span::micros, default_value = "100us",
          help_heading = "Stacks")]
    pub quantum: Duration,
    /// Stacks to remember: a number, or their memory as in 64M
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "64M",
          help_heading = "Stacks")]
    pub stack_storage_size: Budget,
    /// Frames of a stack at most
    #[arg(long, value_name = "N", default_value_t = MAX_FRAMES, help_heading = "Stacks",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_FRAMES)))]
    pub perf_max_stack_depth: u32,

    /// One line for each stack: frames parted by semicolons, outermost first, and microseconds
    #[arg(short, long, help_heading = "Output", conflicts_with = "json")]
    pub folded: bool,
    /// A mark between kernel and user frames
    #[arg(short, long, help_heading = "Output")]
    pub delimited: bool,
    /// Functions with offsets
    #[arg(short = 's', long, help_heading = "Output")]
    pub offset: bool,
    /// Source lines and inlined functions, where there is debug information: slow
    #[arg(long, help_heading = "Output")]
    pub lines: bool,
    /// What one entry is kept for, instead of a stack in a thread
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "Output")]
    pub by: Option<By>,
    /// Only the N entries with the most time; the others as one
    #[arg(long, value_name = "N", help_heading = "Output", value_parser = clap::value_parser!(u64).range(1..))]
    pub top: Option<u64>,
    /// Only entries with this share of the time; the others as one
    #[arg(long, value_name = "P", help_heading = "Output", value_parser = percent)]
    pub min_percent: Option<f64>,
    /// A flame graph into this file
    #[cfg_attr(not(feature = "flamegraph"), arg(skip))]
    #[cfg_attr(
        feature = "flamegraph",
        arg(short = 'g', long, value_name = "FILE", help_heading = "Output", conflicts_with = "interval")
    )]
    pub flamegraph: Option<PathBuf>,
    /// The difference to an earlier run's --folded output, in the flame graph or as folded lines
    #[arg(long, value_name = "FILE", help_heading = "Output", conflicts_with_all = ["interval", "by"])]
    pub diff: Option<PathBuf>,

    #[command(flatten)]
    pub shared: Shared,
}

const EXAMPLES: &str = "Examples:
  offcputime 5                        everything for 5 seconds, the longest last
  offcputime -p 1234 10               one process; threads that hang all the time are there, too
  offcputime -m 10ms --state D 30     who sleeps uninterruptibly for 10 ms and more
  offcputime -g off.svg -p 1234 10    a flame graph
  offcputime -f 10 > off.folded       for other tools
  offcputime -- make -j8              a command and its children";

/// `MAX_FRAMES` of `bpf/lib/stack.bpf.h`.
pub const MAX_FRAMES: u32 = 127;

/// What one entry is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// a stack, whichever thread's it is
    Stack,
    Thread,
    Process,
    Cgroup,
    /// the state in which the thread left its CPU
    State,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').unwrap_or(text).parse::<f64>() {
        Ok(share) if (0.0..=100.0).contains(&share) => Ok(share),
        _ => Err("not a share between 0 and 100".to_owned()),
    }
}

impl Args {
    /// What clap cannot tell.
    ///
    /// # Errors
    /// Limits that leave nothing.
    pub fn check(&self) -> Result<()> {
        if let (Some(min), Some(max)) = (self.min_block_time, self.max_block_time)
            && min > max
        {
            return Err(usage(format!("-m {min:?} is more than -M {max:?}: no wait is both")));
        }
        if self.quantum > LONGEST_QUANTUM {
            return Err(usage(format!("--quantum {:?}: at most {LONGEST_QUANTUM:?}", self.quantum)));
        }
        if self.shared.json && self.only_difference() {
            return Err(usage("--diff writes lines of its own, not --json: add -g FILE, or leave one out"));
        }
        if self.waker && self.is_table() {
            return Err(usage("--waker shows in stacks: --by stack, or --folded"));
        }
        Ok(())
    }

    /// Stdout has the lines of the difference and nothing else.
    pub fn only_difference(&self) -> bool {
        self.diff.is_some() && self.flamegraph.is_none()
    }

    /// Rows instead of stacks: nobody looks at the names of functions then.
    pub fn is_table(&self) -> bool {
        let rows = !matches!(self.by, None | Some(By::Stack));
        rows && !self.folded && self.flamegraph.is_none()
    }

    pub fn every(&self) -> Every {
        Every { interval: self.interval, count: None, duration: self.duration }
    }

    pub fn length_wanted(&self, ns: u64) -> bool {
        let length = Duration::from_nanos(ns);
        self.min_block_time.is_none_or(|min| length >= min)
            && self.max_block_time.is_none_or(|max| length <= max)
    }

    pub fn states(&self) -> States {
        self.state.unwrap_or(States::BLOCKED)
    }

    pub fn runnable(&self) -> bool {
        self.preempted || self.states().has('R')
    }

    /// Waits shorter than this are pooled.
    pub fn pooled(&self) -> Option<Duration> {
        let never = self.exact || self.min_block_time.is_some_and(|min| min >= self.quantum);
        (!never).then_some(self.quantum)
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

/// The programs draw among nanoseconds with 32 bits.
const LONGEST_QUANTUM: Duration = Duration::from_secs(1);
