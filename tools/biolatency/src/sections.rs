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
    /// Of the first sections, if there are any.
    shared: Option<(Pair<'a>, &'a BiolatencyMaps<'a>)>,
    sparse: Pair<'a>,
    keyed: bool,
    empty: Vec<u8>,
    cpus: usize,
    sections: Sections,
}

impl<'a> Counted<'a> {
    /// Before the run. `keyed`: there is more than one section. `shared`: the programs keep those of them.
    pub fn new(maps: &'a BiolatencyMaps<'a>, keyed: bool, shared: bool) -> Result<Counted<'a>> {
        let shared =
            shared.then(|| Pair::new(&maps.shared_active, &maps.shared_a, &maps.shared_b)).transpose()?;
        Ok(Counted {
            dense: Pair::new(&maps.dense_active, &maps.dense_a, &maps.dense_b)?,
            shared: shared.map(|pair| (pair, maps)),
            sparse: Pair::new(&maps.sparse_active, &maps.sparse_a, &maps.sparse_b)?,
            keyed,
            empty: vec![0; maps.dense_a.value_size() as usize],
            cpus: libbpf_rs::num_possible_cpus().context("cannot count the CPUs")?,
            sections: Sections::new(),
        })
    }

    /// Takes what the programs have counted so far.
    pub fn collect(&mut self) -> Result<&Sections> {
        if !self.keyed {
            self.collect_dense()?;
        }
        self.collect_shared()?;
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
        let section = self.sections.entry(Id::default()).or_default();
        for (key, hist) in [(0_u32, &mut section.main), (1, &mut section.queue)] {
            let key = key.to_ne_bytes();
            let per_cpu = left.lookup_percpu(&key, MapFlags::ANY)?.context("a histogram is missing")?;
            per_cpu.iter().for_each(|one| hist.add_struct(one));
            left.update_percpu(&key, &vec![self.empty.clone(); self.cpus], MapFlags::ANY)?;
        }
        Ok(())
    }

    fn collect_shared(&mut self) -> Result<()> {
        let Some((pair, maps)) = &mut self.shared else {
            return Ok(());
        };
        let left = pair.flip()?;
        let table = maps.bss_sections_data.as_deref().context("the sections are not mapped")?;
        for (place, of) in (0_u32..).zip(&table.sections).filter(|(_, of)| of.state == READY) {
            let id = Id { dev: of.dev, cgroup: of.cgroup, flags: of.flags, size: of.size as u8 };
            for which in 0..2 {
                let key = (2 * place + which).to_ne_bytes();
                let mut bytes = left.lookup(&key, MapFlags::ANY)?.context("a histogram is missing")?;
                if complete(&mut bytes) {
                    let section = self.sections.entry(id).or_default();
                    let hist = if which == 0 { &mut section.main } else { &mut section.queue };
                    hist.add_struct(&bytes);
                    left.update(&key, &self.empty, MapFlags::ANY)?;
                }
            }
        }
        Ok(())
    }

    /// Everything since the last part.
    pub fn part(&mut self) -> Result<Sections> {
        self.collect()?;
        Ok(std::mem::take(&mut self.sections))
    }
}

/// `SECTION_READY` of bpf/lib/blk_section.bpf.h.
const READY: u32 = 2;

/// Makes a `struct hist` of one that all CPUs share: the count is that of its slots, and the minimum is kept as its
/// complement. False if there is nothing in it.
fn complete(bytes: &mut [u8]) -> bool {
    let word = |bytes: &[u8], i: usize| maps::u64_at(bytes, 8 * i).unwrap_or(0);
    let count: u64 = (HEAD..bytes.len() / 8).map(|i| word(bytes, i)).sum();
    let min = !word(bytes, 2);
    bytes[..8].copy_from_slice(&count.to_ne_bytes());
    bytes[16..24].copy_from_slice(&min.to_ne_bytes());
    count > 0
}

/// Words before the slots of a `struct hist`: count, sum, min, max.
const HEAD: usize = 4;

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
    fn a_shared_histogram_is_completed() {
        let words = [0_u64, 60, !10, 30, 0, 2, 1];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert!(complete(&mut bytes));
        let mut hist = Hist::default();
        hist.add_struct(&bytes);
        assert_eq!((hist.count(), hist.sum(), hist.min(), hist.max()), (3, 60, 10, 30));
        assert!(!complete(&mut [0; 64]));
    }

    #[test]
    fn each_slot_goes_where_it_belongs() {
        let mut section = Section::default();
        let cell = blk_cell { count: 3, sum: 30, min: 5, max: 15 };
        for (which, slot) in
            [(0, 70), (1, 71), (0, DEPTH), (0, REQUEUED), (0, UNISSUED), (0, ERRORS + 10), (0, ERRNO + 5)]
        {
            section.add(which, slot, &cell);
        }
        assert_eq!((section.main.count(), section.queue.count(), section.depth.max()), (3, 3, 15));
        assert_eq!((section.requeued, section.unissued, section.count()), (3, 3, 6));
        assert_eq!(section.errors, BTreeMap::from([(10, 3), (-5, 3)]));
    }
}
