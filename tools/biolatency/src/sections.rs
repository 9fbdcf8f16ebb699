//! What the programs have counted: by section, complete.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result};
use common::hist::Hist;
use common::maps::{self, Pair};
use libbpf_rs::{MapCore, MapFlags};

use crate::bpf::BiolatencyMaps;
use crate::bpf::types::{blk_cell, blk_key};

// SAFETY: integers without padding; every bit pattern is valid.
unsafe impl plain::Plain for blk_key {}
// SAFETY: as above.
unsafe impl plain::Plain for blk_cell {}

/// `SLOT_*` of bpf/lib/blk_hist.bpf.h.
const DEPTH: u32 = 2000;
const REQUEUED: u32 = 2001;
const UNISSUED: u32 = 2002;
const ERRORS: u32 = 0x1_0000;
const ERRNO: u32 = 0x2_0000;

/// What a section is of; 0 where that is not asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    pub dev: u32,
    pub cgroup: u64,
    pub flags: u32,
    /// 1 + log2 of the bytes, or 0.
    pub size: u8,
}

/// The I/O of one disk, operation, ...
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// The span that was asked for; of a split the device's.
    pub main: Hist,
    /// Of a split.
    pub queue: Hist,
    /// How many requests were in flight at each issue.
    pub depth: Hist,
    pub requeued: u64,
    pub unissued: u64,
    /// By what the tracepoint has: a negative errno or a status.
    pub errors: BTreeMap<i32, u64>,
}

impl Section {
    /// Ended, whether or not there is a time.
    pub fn count(&self) -> u64 {
        self.main.count() + self.unissued
    }

    pub fn time(&self) -> u64 {
        self.main.sum() + self.queue.sum()
    }

    fn add(&mut self, which: u8, slot: u32, cell: &blk_cell) {
        let blk_cell { count, sum, min, max } = *cell;
        match slot {
            DEPTH => self.depth.add_slot(0, count, sum, min, max),
            REQUEUED => self.requeued += count,
            UNISSUED => self.unissued += count,
            ERRNO.. => *self.errors.entry(-((slot - ERRNO) as i32)).or_default() += count,
            ERRORS.. => *self.errors.entry((slot - ERRORS) as i32).or_default() += count,
            _ if which == 0 => self.main.add_slot(slot, count, sum, min, max),
            _ => self.queue.add_slot(slot, count, sum, min, max),
        }
    }
}

pub type Sections = HashMap<Id, Section>;

/// Where the programs count.
pub struct Counted<'a> {
    dense: Pair<'a>,
    sparse: Pair<'a>,
    zeroes: Vec<Vec<u8>>,
    sections: Sections,
}

impl<'a> Counted<'a> {
    /// Before the run.
    pub fn new(maps: &'a BiolatencyMaps<'a>) -> Result<Counted<'a>> {
        let size = maps.dense_a.value_size() as usize;
        let cpus = libbpf_rs::num_possible_cpus().context("cannot count the CPUs")?;
        Ok(Counted {
            dense: Pair::new(&maps.dense_active, &maps.dense_a, &maps.dense_b)?,
            sparse: Pair::new(&maps.sparse_active, &maps.sparse_a, &maps.sparse_b)?,
            zeroes: vec![vec![0; size]; cpus],
            sections: Sections::new(),
        })
    }

    /// Takes what the programs have counted so far.
    pub fn collect(&mut self, keyed: bool) -> Result<&Sections> {
        if !keyed {
            self.collect_dense()?;
        }
        let left = self.sparse.flip()?;
        let sections = &mut self.sections;
        maps::drain(left, |key, cell| {
            let key: &blk_key = plain::from_bytes(key).ok().context("a key of another shape")?;
            let cell: &blk_cell = plain::from_bytes(cell).ok().context("a value of another shape")?;
            let id = Id { dev: key.dev, cgroup: key.cgroup, flags: key.flags, size: key.size };
            sections.entry(id).or_default().add(key.which, key.slot, cell);
            Ok(())
        })?;
        Ok(&self.sections)
    }

    fn collect_dense(&mut self) -> Result<()> {
        let left = self.dense.flip()?;
        for which in 0..2_u32 {
            let key = which.to_ne_bytes();
            let per_cpu = left.lookup_percpu(&key, MapFlags::ANY)?.context("a histogram is missing")?;
            let section = self.sections.entry(Id::default()).or_default();
            let hist = if which == 0 { &mut section.main } else { &mut section.queue };
            per_cpu.iter().for_each(|one| hist.add_struct(one));
            left.update_percpu(&key, &self.zeroes, MapFlags::ANY)?;
        }
        Ok(())
    }

    /// Everything since the last part.
    pub fn part(&mut self, keyed: bool) -> Result<Sections> {
        self.collect(keyed)?;
        Ok(std::mem::take(&mut self.sections))
    }
}

/// The most time first.
pub fn ranked(sections: Sections) -> Vec<(Id, Section)> {
    let mut ranked: Vec<(Id, Section)> = sections.into_iter().collect();
    ranked.sort_by_key(|(id, section)| (std::cmp::Reverse(section.time()), *id));
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_goes_where_it_belongs() {
        let mut section = Section::default();
        let cell = blk_cell { count: 3, sum: 30, min: 5, max: 15 };
        for (which, slot) in [(0, 70), (1, 71), (0, DEPTH), (0, REQUEUED), (0, UNISSUED), (0, ERRORS + 10), (0, ERRNO + 5)] {
            section.add(which, slot, &cell);
        }
        assert_eq!((section.main.count(), section.queue.count(), section.depth.max()), (3, 3, 15));
        assert_eq!((section.requeued, section.unissued, section.count()), (3, 3, 6));
        assert_eq!(section.errors, BTreeMap::from([(10, 3), (-5, 3)]));
    }
}
