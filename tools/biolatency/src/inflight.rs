//! What was under way when the run began, and what still is when it ends: outside of the histograms, and said.

use std::time::Duration;

use anyhow::Result;
use common::{clock, maps};
use libbpf_rs::skel::Skel as _;
use libbpf_rs::{MapCore as _, MapFlags};
use serde_json::{Value, json};

use crate::bpf::BiolatencySkel;

/// `BEGAN_BEFORE` of bpf/lib/maps.bpf.h.
const BEGAN_BEFORE: u32 = 6;
/// An I/O that is under way for longer has something wrong with it.
const LONG: Duration = Duration::from_secs(1);

pub struct InFlight {
    at_start: u64,
    at_end: u64,
    oldest: Duration,
}

impl InFlight {
    /// After the run.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn read(skel: &BiolatencySkel<'_>) -> Result<InFlight> {
        let losses = maps::find(skel.object(), "losses")?;
        let per_cpu = losses.lookup_percpu(&BEGAN_BEFORE.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
        let at_start = per_cpu.iter().filter_map(|bytes| maps::u64_at(bytes, 0)).sum();
        let mut since = Vec::new();
        if let Some(data) = &skel.maps.bss_table_data {
            since.extend(data.table.iter().filter(|start| start.key != 0).map(|start| start.queued));
        }
        let hash = &skel.maps.start_hash;
        for key in hash.keys() {
            // `queued` is the second word of `struct blk_start`.
            let found = hash.lookup(&key, MapFlags::ANY)?;
            since.extend(found.and_then(|start| maps::u64_at(&start, 8)));
        }
        let now = clock::monotonic();
        let oldest = since.iter().min().map_or(0, |first| now.saturating_sub(*first));
        Ok(InFlight { at_start, at_end: since.len() as u64, oldest: Duration::from_nanos(oldest) })
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
        vec![("in_flight", json!({"at_start": self.at_start, "at_end": self.at_end, "oldest_seconds": oldest}))]
    }
}
