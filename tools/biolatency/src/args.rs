//! The command line of biolatency.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use common::cli::{Every, Shared, usage};
use common::hist::Unit;
use common::span;

/// How long block I/O takes, as histograms: in the kernel's queue, and in the device
///
/// Device time is from a request's first issue to its driver to the completion of its last byte; queue time
/// from its insertion into the scheduler (or its submission, if it bypasses that) to the first issue. A request
/// that completes in parts, is requeued or merged is counted once.
#[derive(Parser, Debug)]
#[command(name = "biolatency", version, after_help = EXAMPLES)]
pub struct Args {
    /// Print every so often: seconds, or 500ms, 2s, 1m
    #[arg(value_parser = span::seconds)]
    pub interval: Option<Duration>,
    /// End after this many intervals
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// End after this time
    #[arg(long, value_name = "TIME", value_parser = span::seconds)]
    pub duration: Option<Duration>,

    /// The time before each report
    #[arg(short = 'T', long)]
    pub timestamp: bool,
    /// Milliseconds instead of microseconds
    #[arg(short, long)]
    pub milliseconds: bool,
    /// Nanoseconds instead of microseconds
    #[arg(long = "ns", conflicts_with = "milliseconds")]
    pub nanoseconds: bool,
    /// A line with average, total and count at the end of each report
    #[arg(short, long)]
    pub extension: bool,
    /// No histogram, but a row for each I/O whose queue and device time make at least this; a bare number is in
    /// microseconds
    #[arg(long, value_name = "TIME", value_parser = span::micros,
          conflicts_with_all = ["interval", "count", "by", "disks", "flags", "queued", "split", "size",
                                "inflight", "extension", "milliseconds", "nanoseconds"])]
    pub slower: Option<Duration>,
    /// As --json
    #[arg(short = 'j')]
    pub j: bool,

    /// Queue and device time as one
    #[arg(short = 'Q', long, help_heading = "What is measured")]
    pub queued: bool,
    /// Queue and device time side by side
    #[arg(long, help_heading = "What is measured", conflicts_with_all = ["queued", "bio"])]
    pub split: bool,
    /// Bios instead of requests, from submission to end: dm, md, zram too, and waits for a request
    #[arg(long, help_heading = "What is measured", conflicts_with_all = ["queued", "inflight"])]
    pub bio: bool,
    /// Sizes instead of times
    #[arg(long, help_heading = "What is measured", conflicts_with_all = ["queued", "split", "milliseconds", "nanoseconds"])]
    pub size: bool,
    /// How many requests the disk had in flight at each issue: mean and maximum
    #[arg(short, long, help_heading = "What is measured")]
    pub inflight: bool,

    /// One histogram for each; several with commas
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',', help_heading = "Histograms")]
    pub by: Vec<By>,
    /// One histogram for each disk (--by disk)
    #[arg(short = 'D', long, help_heading = "Histograms")]
    pub disks: bool,
    /// One histogram for each set of flags and operation (--by flags)
    #[arg(short = 'F', long, visible_alias = "flag", help_heading = "Histograms")]
    pub flags: bool,

    /// These disks or partitions: vda, /dev/vda1, 8:1, any link in /dev/disk; may be given several times
    #[arg(short, long, value_name = "DISK", help_heading = "Filters")]
    pub disk: Vec<PathBuf>,
    /// These operations: read, write, flush, discard, ... as the kernel names them
    #[arg(short, long, value_name = "OP", value_delimiter = ',', help_heading = "Filters")]
    pub op: Vec<String>,
    /// I/O that is charged to this cgroup (v2) or one below it; may be given several times
    #[arg(short, long, value_name = "PATH", help_heading = "Filters")]
    pub cgroup: Vec<PathBuf>,
    #[arg(short, long, hide = true, value_name = "PID", num_args = 0..=1, default_missing_value = "")]
    pub pid: Option<String>,
    /// Run a command, trace all I/O meanwhile, and end with it
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    #[command(flatten)]
    pub shared: Shared,
}

const EXAMPLES: &str = "Examples:
  biolatency --split          is it the queue or the device? Side by side, until Ctrl-C
  biolatency -D 1 10          the device time of each disk, once a second, ten times
  biolatency -d vda --by op   reads, writes and flushes of a disk
  biolatency --slower 50ms    which I/O took longer, where, and who submitted it
  biolatency --bio -d dm-0    a stacked device, from submission to end";

/// What one histogram is kept for; the values are `enum by` in the BPF program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    Disk = 1,
    Partition = 2,
    Op = 4,
    Flags = 8,
    Size = 16,
    Cgroup = 32,
}

/// What a value is; the values are `enum span` in the BPF program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    Device = 0,
    Total = 1,
    Split = 2,
    Size = 3,
}

impl Args {
    /// # Errors
    /// Usage: what no parser knows.
    pub fn check(&self) -> Result<()> {
        if self.pid.is_some() {
            return Err(usage(
                "-p: an I/O is no process's: writes are submitted by kernel threads, and ends are interrupts. \
                 See -c CGROUP for whom it is charged to, --slower for who submitted it",
            ));
        }
        let both = |a: By, b: By| self.is_by(a) && self.is_by(b);
        if both(By::Disk, By::Partition) || both(By::Op, By::Flags) {
            return Err(usage(
                "--by: a partition has its disk and flags have their operation in them: give one",
            ));
        }
        Ok(())
    }

    fn is_by(&self, what: By) -> bool {
        self.by.contains(&what) || (what == By::Disk && self.disks) || (what == By::Flags && self.flags)
    }

    /// The kinds in the order in which a section's label has them.
    pub fn kinds(&self) -> Vec<By> {
        let all = [By::Disk, By::Partition, By::Cgroup, By::Op, By::Flags, By::Size];
        all.into_iter().filter(|what| self.is_by(*what)).collect()
    }

    pub fn every(&self) -> Every {
        Every { interval: self.interval, count: self.count, duration: self.duration }
    }

    pub fn shared(&self) -> Shared {
        Shared { json: self.shared.json || self.j, ..self.shared.clone() }
    }

    /// Of `--bio` there is a total only.
    pub fn span(&self, bio: bool) -> Span {
        match self {
            Args { size: true, .. } => Span::Size,
            Args { split: true, .. } => Span::Split,
            Args { queued: true, .. } => Span::Total,
            _ if bio || self.slower.is_some() => Span::Total,
            _ => Span::Device,
        }
    }

    pub fn unit(&self) -> Unit {
        match self {
            Args { size: true, .. } => Unit::Bytes,
            Args { milliseconds: true, .. } => Unit::Msecs,
            Args { nanoseconds: true, .. } => Unit::Nsecs,
            _ => Unit::Usecs,
        }
    }
}
