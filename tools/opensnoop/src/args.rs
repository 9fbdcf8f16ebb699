//! The command line of opensnoop.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use common::cli::{Every, Shared, usage};
use common::filter::Wanted;
use common::start::Target;
use common::{proc, span};
use nix::unistd::{SysconfVar, sysconf};

use crate::flags::{self, Flags};
use crate::globs::Globs;

/// Who opens which file, and how it went
///
/// A row for each open(2), creat(2), openat(2), openat2(2) and open_by_handle_at(2), of 32-bit programs
/// too, and for each open through io_uring, when it is done.
#[derive(Parser, Debug)]
#[command(name = "opensnoop", version, after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub every: Every,
    /// End after this many opens
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_events: Option<u64>,
    /// No rows, but how many opens there were for each path, name or error
    #[arg(long, value_enum, value_name = "WHAT")]
    pub summary: Option<By>,
    /// Size of the ring buffer in pages, a power of two (4 MiB)
    #[arg(short, long, value_name = "PAGES", value_parser = pages)]
    pub buffer_pages: Option<u32>,

    /// The time of each open
    #[arg(short = 'T', long, help_heading = "Columns")]
    pub timestamp: bool,
    /// The user
    #[arg(short = 'U', long, help_heading = "Columns")]
    pub print_uid: bool,
    /// The parent process
    #[arg(long, help_heading = "Columns")]
    pub ppid: bool,
    /// The flags and the mode, in octal
    #[arg(short, long = "extended_fields", alias = "extended-fields", help_heading = "Columns")]
    pub extended_fields: bool,
    /// The name of the error instead of its number
    #[arg(long, help_heading = "Columns")]
    pub errname: bool,
    /// How long the open took, in microseconds
    #[arg(long, help_heading = "Columns")]
    pub latency: bool,
    /// The absolute path: of the file that was opened, or else of what was asked for
    #[arg(short = 'F', long, help_heading = "Columns")]
    pub full_path: bool,

    /// Only opens that failed
    #[arg(short = 'x', long, help_heading = "Filters")]
    pub failed: bool,
    /// Only opens with one of these flags, such as O_CREAT or O_RDONLY; may be given several times
    #[arg(short, long = "flag_filter", alias = "flag-filter", value_name = "O_FLAG", value_parser = flags::parse,
          help_heading = "Filters")]
    pub flag_filter: Vec<Flags>,
    /// Only opens that took at least this long: 500us, 10ms; a bare number is in seconds
    #[arg(long, value_name = "TIME", value_parser = span::seconds, help_heading = "Filters")]
    pub slower: Option<Duration>,
    /// Only these files: * stops at a slash, ** does not; without a slash the last part of the path is
    /// matched, in any directory. May be given several times
    #[arg(long = "path", value_name = "GLOB", help_heading = "Filters")]
    pub globs: Vec<String>,
    /// These processes
    #[arg(short, long, value_name = "PID", value_delimiter = ',', help_heading = "Filters",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,
    /// These threads
    #[arg(short, long, value_name = "TID", value_delimiter = ',', help_heading = "Filters",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub tid: Vec<u32>,
    /// This user, by name or number
    #[arg(short, long, value_name = "USER", value_parser = user, help_heading = "Filters")]
    pub uid: Option<u32>,
    /// Threads with this text in their name
    #[arg(short, long, alias = "comm", value_name = "TEXT", help_heading = "Filters")]
    pub name: Option<String>,
    /// Threads in this cgroup (v2) or below it; may be given several times
    #[arg(long, value_name = "PATH", help_heading = "Filters")]
    pub cgroup: Vec<PathBuf>,
    /// Threads in exactly the cgroups whose ids are in this pinned BPF map
    #[arg(long, value_name = "PATH", conflicts_with = "cgroup", help_heading = "Filters")]
    pub cgroupmap: Option<PathBuf>,
    /// Run a command, trace it and its children, and end with it
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    /// For scripts that ask for it: said to be missing
    #[arg(short, long, hide = true)]
    pub callers: bool,

    #[command(flatten)]
    pub shared: Shared,
}

const EXAMPLES: &str = "Examples:
  opensnoop -x -p 1234               which files a process looks for in vain
  opensnoop -F --path '/etc/**'      who opens what below /etc
  opensnoop -e -f O_CREAT -f O_TRUNC who creates or empties files
  opensnoop --slower 10ms            opens that took long
  opensnoop --summary path 1 10      the most opened files of each second
  opensnoop -- ls -l                 a command and its children";

/// Room for some 30,000 opens of short names.
const DEFAULT_RING: u32 = 4 << 20;

/// What opens are counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    Path,
    Comm,
    Err,
}

fn user(text: &str) -> Result<u32, String> {
    proc::user_id(text).map_err(|error| error.to_string())
}

fn pages(text: &str) -> Result<u32, String> {
    // 2 GiB of the usual pages; the size of a BPF map is a u32.
    let fits = |pages: &u32| pages.is_power_of_two() && *pages <= 1 << 19;
    text.parse().ok().filter(fits).ok_or_else(|| "not a power of two from 1 to 524288".to_owned())
}

impl Args {
    /// What clap cannot tell.
    pub fn check(&self) -> Result<()> {
        if self.callers {
            return Err(usage("--callers is not there yet: opensnoop has no symbols of user programs"));
        }
        if self.every.interval.is_some() && self.summary.is_none() {
            return Err(usage(
                "an interval is for --summary: without it every open is a row (-d ends a run)",
            ));
        }
        Ok(())
    }

    pub fn globs(&self) -> Result<Option<Globs>> {
        if self.globs.is_empty() { Ok(None) } else { Globs::new(&self.globs).map(Some) }
    }

    /// # Errors
    /// The kernel does not say how large a page is.
    pub fn ring_bytes(&self) -> Result<u32> {
        let page = sysconf(SysconfVar::PAGE_SIZE)?.context("sysconf(_SC_PAGESIZE)")?;
        let Some(pages) = self.buffer_pages else { return Ok(DEFAULT_RING) };
        let bytes = i64::from(pages).checked_mul(page).and_then(|bytes| u32::try_from(bytes).ok());
        bytes.with_context(|| format!("--buffer-pages {pages}: a BPF map has less than 4 GiB"))
    }

    pub fn nothing_seen(&self) {
        let all = self.target().wanted.everything()
            && self.cgroup.is_empty()
            && self.command.is_empty()
            && self.globs.is_empty()
            && self.flag_filter.is_empty()
            && self.uid.is_none();
        let why = match self.slower {
            Some(limit) => format!("no open took {limit:?} or longer"),
            None if self.failed => "no open that matches failed".to_owned(),
            None if all => "no file was opened".to_owned(),
            None => "no open matched the filters".to_owned(),
        };
        eprintln!("opensnoop: {why}");
    }

    /// The starts of calls are looked at as well.
    pub fn timed(&self) -> bool {
        self.latency || self.slower.is_some()
    }

    /// `--path` is matched against it, too.
    pub fn walks(&self) -> bool {
        self.full_path || !self.globs.is_empty()
    }

    pub fn target(&self) -> Target<'_> {
        let wanted = Wanted {
            pids: self.pid.clone(),
            tids: self.tid.clone(),
            comm: self.name.clone(),
            pinned: self.cgroupmap.clone(),
            ..Wanted::default()
        };
        Target { wanted, cgroups: &self.cgroup, command: &self.command }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["opensnoop"].iter().chain(words))
    }

    #[test]
    fn flags_of_the_peers_are_taken() {
        let args = parse(&["-TUx", "-eF", "-p", "1,2", "-n", "sh", "-d", "3", "-f", "O_CREAT"]).unwrap();
        assert!(args.timestamp && args.print_uid && args.failed && args.extended_fields && args.full_path);
        assert_eq!((args.pid, args.name.as_deref()), (vec![1, 2], Some("sh")));
        for spelling in ["--extended_fields", "--extended-fields"] {
            assert!(parse(&[spelling]).unwrap().extended_fields);
        }
    }

    #[test]
    fn a_ring_has_a_power_of_two_of_pages() {
        assert_eq!((pages("1"), pages("524288")), (Ok(1), Ok(524_288)));
        for text in ["0", "3", "-1", "1048576", "x", ""] {
            assert!(pages(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_interval_needs_a_summary() {
        assert!(parse(&["1"]).unwrap().check().is_err());
        assert!(parse(&["1", "3", "--summary", "path"]).unwrap().check().is_ok());
        assert!(parse(&["-c"]).unwrap().check().unwrap_err().to_string().contains("symbols"));
    }

    #[test]
    fn the_command_line_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }
}
