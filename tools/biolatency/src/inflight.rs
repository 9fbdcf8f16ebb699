//! What was under way when the run began, and what still is when it ends: outside of the histograms, and said.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::{clock, maps};
use libbpf_rs::skel::Skel as _;
use libbpf_rs::{MapCore, MapFlags};
use serde_json::{Value, json};

use crate::bpf::BiolatencySkel;
use crate::bpf::types::blk_start;
use crate::disks::{self, Disk};
use crate::names::Flags;

// SAFETY: integers and bytes without padding; every bit pattern is valid.
unsafe impl plain::Plain for blk_start {}

/// `BEGAN_BEFORE` of bpf/lib/maps.bpf.h.
const BEGAN_BEFORE: u32 = 6;
/// An I/O that is under way for longer has something wrong with it.
const LONG: Duration = Duration::from_secs(1);

/// What has been there for less may be on its way to its end right now.
const YOUNG: Duration = Duration::from_millis(100);

/// How often the kernel is asked, and how long apart.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

pub struct InFlight {
    /// Of bios that is not known: parts of one that was split have no start either.
    at_start: Option<u64>,
    pub at_end: u64,
    /// Their ends were not seen: the kernel says that they are not in flight any more.
    pub unseen: u64,
    oldest: Duration,
}

impl InFlight {
    /// After the run, which was about these disks (or all), and about bios or requests.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn read(skel: &BiolatencySkel<'_>, flags: &Flags, disks: &[Disk], bio: bool) -> Result<InFlight> {
        let losses = maps::find(skel.object(), "losses")?;
        let before = losses.lookup_percpu(&BEGAN_BEFORE.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
        let now = clock::monotonic();
        let mut left = Vec::new();
        let mut add = |start: &blk_start| {
            let is_in_driver = start.issued != 0 && start.requeued == 0;
            let is_counted = bio || (is_in_driver && flags.is_accounted(start.op.into()));
            left.push(Left { age: Duration::from_nanos(now.saturating_sub(start.queued)), is_counted });
        };
        if let Some(data) = &skel.maps.bss_table_data {
            data.table.iter().filter(|start| start.key != 0).for_each(&mut add);
        }
        for found in values(&skel.maps.start_hash)? {
            add(plain::from_bytes(&found).ok().context("a start of another shape")?);
        }
        for found in values(&skel.maps.held_back)? {
            let since = maps::u64_at(&found, 0).context("a bio held back of another shape")?;
            left.push(Left { age: Duration::from_nanos(now.saturating_sub(since)), is_counted: false });
        }
        let doubtful = left.iter().filter(|left| left.is_doubtful()).count();
        let real = if doubtful == 0 { 0 } else { real(doubtful, lasting_count(&counting(disks, bio)), bio) };
        let all = left.len();
        let ages = there(left, real);
        let oldest = ages.iter().max().copied().unwrap_or_default();
        let at_start = (!bio).then(|| sum(&before));
        Ok(InFlight { at_start, at_end: ages.len() as u64, unseen: (all - ages.len()) as u64, oldest })
    }

    /// A line on stderr about I/O that hangs.
    pub fn say(&self) {
        if self.oldest >= LONG {
            let (number, seconds) = (self.at_end, self.oldest.as_secs_f64());
            eprintln!("biolatency: {number} still in flight at the end, the oldest for {seconds:.3} s");
        }
    }

    /// For the end record.
    pub fn json(&self) -> Vec<(&'static str, Value)> {
        let oldest = common::table::rounded(self.oldest.as_secs_f64());
        vec![(
            "in_flight",
            json!({"at_start": self.at_start, "at_end": self.at_end, "oldest_seconds": oldest}),
        )]
    }
}

fn values(map: &impl MapCore) -> Result<Vec<Vec<u8>>> {
    let found = map.keys().map(|key| map.lookup(&key, MapFlags::ANY));
    Ok(found.collect::<libbpf_rs::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn sum(per_cpu: &[Vec<u8>]) -> u64 {
    per_cpu.iter().filter_map(|bytes| maps::u64_at(bytes, 0)).sum()
}

/// An I/O whose end was not seen.
struct Left {
    age: Duration,
    /// The kernel has it in its count of what is in flight, if it is. That leaves out what waits for its turn.
    is_counted: bool,
}

impl Left {
    fn is_doubtful(&self) -> bool {
        self.is_counted && self.age >= YOUNG
    }
}

/// The ages of those that are under way: of the doubtful ones the youngest, so many.
fn there(mut left: Vec<Left>, real: usize) -> Vec<Duration> {
    left.sort_unstable_by_key(|left| left.age);
    let mut doubtful = 0;
    left.retain(|left| {
        doubtful += usize::from(left.is_doubtful());
        !left.is_doubtful() || doubtful <= real
    });
    left.into_iter().map(|left| left.age).collect()
}

/// How many of those that seem to be under way for long are, by the kernel's count; all, if it has none. It counts
/// requests: of bios it only tells that there are some, for several may be in one, or wait for one.
fn real(seeming: usize, kernels: Option<u64>, bio: bool) -> usize {
    match kernels {
        None => seeming,
        Some(0) => 0,
        Some(_) if bio => seeming,
        Some(count) => seeming.min(usize::try_from(count).unwrap_or(usize::MAX)),
    }
}

/// Those that the kernel has in flight and that stay: whatever comes and goes meanwhile is not old.
fn lasting_count(dirs: &[PathBuf]) -> Option<u64> {
    let mut least = kernels_count(dirs)?;
    for _ in 0..LOOKS {
        std::thread::sleep(PAUSE);
        least = least.min(kernels_count(dirs)?);
    }
    Some(least)
}

/// Where the kernel counts what may be left. Requests: of the disks that were asked for, and of those that have any.
/// Bios: of all, for a disk of bios may leave the counting to those below it.
fn counting(disks: &[Disk], bio: bool) -> Vec<PathBuf> {
    let all = fs::read_dir("/sys/block").into_iter().flatten().flatten().map(|entry| entry.path());
    let is_asked_for = |dir: &Path| {
        disks.is_empty() || disks::number_at(dir).is_some_and(|dev| disks.iter().any(|disk| disk.dev == dev))
    };
    all.filter(|dir| bio || (dir.join("mq").exists() && is_asked_for(dir))).collect()
}

/// None if the kernel does not count for some disk (iostats) that takes requests; others, zram for one, need not.
fn kernels_count(dirs: &[PathBuf]) -> Option<u64> {
    let mut count = 0;
    for dir in dirs {
        // One that has been pulled out has nothing in flight.
        let Ok(text) = fs::read_to_string(dir.join("inflight")) else { continue };
        if dir.join("mq").exists() && fs::read_to_string(dir.join("queue/iostats")).ok()?.trim() == "0" {
            return None;
        }
        count += text.split_whitespace().filter_map(|n| n.parse::<u64>().ok()).sum::<u64>();
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_does_not_have_in_flight_is_not() {
        let of = |kernels| real(3, kernels, false);
        assert_eq!([of(Some(1)), of(Some(9)), of(None), of(Some(0))], [1, 3, 3, 0]);
        assert_eq!([Some(1), None, Some(0)].map(|kernels| real(3, kernels, true)), [3, 3, 0]);
    }

    #[test]
    fn what_waits_for_its_turn_is_under_way() {
        let left = |millis, is_counted| Left { age: Duration::from_millis(millis), is_counted };
        let all = || vec![left(900, true), left(500, true), left(700, false), left(5, true)];
        let millis = |ages: Vec<Duration>| ages.iter().map(Duration::as_millis).collect::<Vec<_>>();
        assert_eq!(millis(there(all(), 1)), [5, 500, 700]);
        assert_eq!(millis(there(all(), 0)), [5, 700]);
        assert_eq!(millis(there(all(), 2)), [5, 500, 700, 900]);
    }
}
