//! What was under way when the run began, and what still is when it ends: outside of the histograms, and said.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use common::{clock, maps};
use libbpf_rs::skel::Skel as _;
use libbpf_rs::{MapCore as _, MapFlags};
use serde_json::{Value, json};

use crate::bpf::BiolatencySkel;

/// `BEGAN_BEFORE` of bpf/lib/maps.bpf.h.
const BEGAN_BEFORE: u32 = 6;
/// `LOST_UNMATCHED`.
const UNMATCHED: u32 = 2;
/// An I/O that is under way for longer has something wrong with it.
const LONG: Duration = Duration::from_secs(1);

/// What has been there for less may be on its way to its end right now.
const YOUNG: Duration = Duration::from_millis(100);

/// How often the kernel is asked, and how long apart.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

pub struct InFlight {
    at_start: u64,
    pub at_end: u64,
    /// Their ends were not seen: the kernel says that they are not in flight any more.
    pub unseen: u64,
    oldest: Duration,
}

impl InFlight {
    /// After the run.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn read(skel: &BiolatencySkel<'_>) -> Result<InFlight> {
        let losses = maps::find(skel.object(), "losses")?;
        let at_start =
            sum(&losses.lookup_percpu(&BEGAN_BEFORE.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default());
        let now = clock::monotonic();
        let mut ages = Vec::new();
        if let Some(data) = &skel.maps.bss_table_data {
            let used = data.table.iter().filter(|start| start.key != 0);
            ages.extend(used.map(|start| now.saturating_sub(start.queued)));
        }
        let hash = &skel.maps.start_hash;
        for key in hash.keys() {
            // `queued` is the second word of `struct blk_start`.
            let found = hash.lookup(&key, MapFlags::ANY)?;
            ages.extend(
                found.and_then(|start| maps::u64_at(&start, 8)).map(|queued| now.saturating_sub(queued)),
            );
        }
        ages.sort_unstable();
        let young = ages.partition_point(|age| Duration::from_nanos(*age) < YOUNG);
        let old = ages.len() - young;
        let real = young + if old == 0 { 0 } else { real(old, lasting_count()) };
        let unseen = (ages.len() - real) as u64;
        ages.truncate(real);
        let oldest = Duration::from_nanos(ages.last().copied().unwrap_or(0));
        Ok(InFlight { at_start, at_end: real as u64, unseen, oldest })
    }

    /// Counts the unseen ends among what was lost.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn book(&self, skel: &BiolatencySkel<'_>) -> Result<()> {
        if self.unseen == 0 {
            return Ok(());
        }
        let losses = maps::find(skel.object(), "losses")?;
        let key = UNMATCHED.to_ne_bytes();
        let mut per_cpu = losses.lookup_percpu(&key, MapFlags::ANY)?.unwrap_or_default();
        let before = per_cpu.first().and_then(|bytes| maps::u64_at(bytes, 0)).unwrap_or(0);
        if let Some(first) = per_cpu.first_mut() {
            *first = (before + self.unseen).to_ne_bytes().into();
        }
        Ok(losses.update_percpu(&key, &per_cpu, MapFlags::ANY)?)
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

fn sum(per_cpu: &[Vec<u8>]) -> u64 {
    per_cpu.iter().filter_map(|bytes| maps::u64_at(bytes, 0)).sum()
}

/// How many of those that seem to be under way for long are, by the kernel's count; all, if it has none.
fn real(seeming: usize, kernels: Option<u64>) -> usize {
    kernels.map_or(seeming, |count| seeming.min(usize::try_from(count).unwrap_or(usize::MAX)))
}

/// Those that the kernel has in flight and that stay: whatever comes and goes meanwhile is not old.
fn lasting_count() -> Option<u64> {
    let mut least = kernels_count()?;
    for _ in 0..LOOKS {
        std::thread::sleep(PAUSE);
        least = least.min(kernels_count()?);
    }
    Some(least)
}

/// All that the kernel has in flight. None if it does not count that for some disk (iostats) that takes requests;
/// others, zram for one, need not.
fn kernels_count() -> Option<u64> {
    let mut count = 0;
    for disk in fs::read_dir("/sys/block").ok()?.flatten() {
        let dir = disk.path();
        if dir.join("mq").exists() && fs::read_to_string(dir.join("queue/iostats")).ok()?.trim() == "0" {
            return None;
        }
        let text = fs::read_to_string(dir.join("inflight")).ok()?;
        count += text.split_whitespace().filter_map(|n| n.parse::<u64>().ok()).sum::<u64>();
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_does_not_have_in_flight_is_not() {
        assert_eq!([real(3, Some(1)), real(3, Some(9)), real(3, None), real(0, Some(2))], [1, 3, 3, 0]);
    }
}
