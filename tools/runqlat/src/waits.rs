//! The histograms of a run: taken from the kernel, summed by key, with an eye on how many there are.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result};
use common::hist::Hist;
use common::maps::{self, Pair};
use common::proc;
use common::text::until_nul;
use libbpf_rs::{MapCore, MapFlags};

use crate::args::By;
use crate::bpf::RunqlatMaps;
use crate::bpf::types::{runq_cell, runq_key};

// SAFETY: integers and bytes without padding; every bit pattern is valid.
unsafe impl plain::Plain for runq_key {}
// SAFETY: as above.
unsafe impl plain::Plain for runq_cell {}

/// Why a thread waited; `enum why` in `bpf/runqlat.bpf.c`.
pub const WHYS: [&str; 2] = ["wakeup", "preempted"];

/// Sections kept at most; beyond it those of ended tasks become one. A task that lives keeps its own.
const SECTIONS: usize = 10_240;

/// The waits of one process, thread, CPU, ..., by reason.
#[derive(Clone, Default)]
pub struct Section {
    pub waits: [Hist; WHYS.len()],
    pub comm: Vec<u8>,
}

impl Section {
    pub fn all(&self) -> Hist {
        let mut all = Hist::default();
        self.waits.iter().for_each(|hist| all.merge(hist));
        all
    }

    pub fn sum(&self) -> u64 {
        self.waits.iter().map(Hist::sum).sum()
    }

    pub fn merge(&mut self, other: &Section) {
        for (to, from) in self.waits.iter_mut().zip(&other.waits) {
            to.merge(from);
        }
    }
}

/// The waits of one part of the run.
#[derive(Default)]
pub struct Part {
    /// By process id, thread id, CPU, ...; by 0 where there is one histogram only.
    pub sections: HashMap<u64, Section>,
    /// Those of ended tasks that had to go, and which they were: a task's last waits may come later.
    pub evicted: Section,
    pub evictions: HashSet<u64>,
}

/// Where the programs count.
pub struct Waits<'a> {
    by: Option<By>,
    sets: Pair<'a>,
    zeroes: Vec<Vec<u8>>,
    part: Part,
}

impl<'a> Waits<'a> {
    /// Before the run.
    pub fn new(maps: &'a RunqlatMaps<'a>, by: Option<By>) -> Result<Waits<'a>> {
        let size = maps.dense_a.value_size() as usize;
        let cpus = libbpf_rs::num_possible_cpus().context("cannot count the CPUs")?;
        let sets = if Waits::is_keyed(by) {
            Pair::new(&maps.sparse_active, &maps.sparse_a, &maps.sparse_b)?
        } else {
            Pair::new(&maps.dense_active, &maps.dense_a, &maps.dense_b)?
        };
        Ok(Waits { by, sets, zeroes: vec![vec![0; size]; cpus], part: Part::default() })
    }

    /// Are there more keys than the per-CPU arrays can hold apart?
    pub fn is_keyed(by: Option<By>) -> bool {
        !matches!(by, None | Some(By::Why | By::Cpu))
    }

    /// Takes what the programs have counted so far.
    pub fn collect(&mut self) -> Result<()> {
        if Waits::is_keyed(self.by) { self.collect_sparse() } else { self.collect_dense() }
    }

    /// Everything since the last part.
    pub fn part(&mut self) -> Result<Part> {
        self.collect()?;
        Ok(std::mem::take(&mut self.part))
    }

    fn collect_dense(&mut self) -> Result<()> {
        let left = self.sets.flip()?;
        for why in 0..WHYS.len() {
            let key = (why as u32).to_ne_bytes();
            let per_cpu = left.lookup_percpu(&key, MapFlags::ANY)?.context("a histogram is missing")?;
            for (cpu, hist) in (0..).zip(&per_cpu).filter(|(_, hist)| maps::u64_at(hist, 0) != Some(0)) {
                let id = if self.by == Some(By::Cpu) { cpu } else { 0 };
                self.part.sections.entry(id).or_default().waits[why].add_struct(hist);
            }
            left.update_percpu(&key, &self.zeroes, MapFlags::ANY)?;
        }
        Ok(())
    }

    fn collect_sparse(&mut self) -> Result<()> {
        let left = self.sets.flip()?;
        let sections = &mut self.part.sections;
        maps::drain(left, |key, cell| {
            let key: &runq_key = plain::from_bytes(key).ok().context("a key of another shape")?;
            let cell: &runq_cell = plain::from_bytes(cell).ok().context("a value of another shape")?;
            let section = sections.entry(key.id).or_default();
            section.comm = until_nul(&cell.comm);
            if let Some(hist) = section.waits.get_mut(key.why as usize) {
                hist.add_slot(key.slot, cell.count, cell.sum, cell.min, cell.max);
            }
            Ok(())
        })?;
        if self.part.sections.len() > SECTIONS && matches!(self.by, Some(By::Pid | By::Tid)) {
            self.part.evict(|id| u32::try_from(id).is_ok_and(proc::is_gone));
        }
        Ok(())
    }
}

/// The sections to show, and those below `--top` as one with their number.
pub struct Ranked {
    pub sections: Vec<(u64, Section)>,
    pub others: Option<(u64, Section)>,
}

impl Part {
    fn evict(&mut self, is_gone: impl Fn(u64) -> bool) {
        let gone: Vec<u64> = self.sections.keys().copied().filter(|id| is_gone(*id)).collect();
        for id in gone {
            if let Some(section) = self.sections.remove(&id) {
                self.evicted.merge(&section);
                self.evictions.insert(id);
            }
        }
    }

    pub fn count(&self) -> u64 {
        let sections = self.sections.values().chain([&self.evicted]);
        sections.flat_map(|section| &section.waits).map(Hist::count).sum()
    }

    /// The most waiting time first.
    pub fn ranked(self, top: Option<usize>) -> Ranked {
        let mut ranked: Vec<(u64, Section)> = self.sections.into_iter().collect();
        ranked.sort_by_key(|(id, section)| (std::cmp::Reverse(section.sum()), *id));
        let rest = ranked.split_off(top.unwrap_or(ranked.len()).min(ranked.len()));
        let others = (!rest.is_empty()).then(|| {
            let mut one = Section::default();
            rest.iter().for_each(|(_, section)| one.merge(section));
            (rest.len() as u64, one)
        });
        Ranked { sections: ranked, others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(sums: &[(u64, u64)]) -> Part {
        let mut part = Part::default();
        for (id, sum) in sums {
            part.sections.entry(*id).or_default().waits[0].add_slot(5, 1, *sum, *sum, *sum);
        }
        part
    }

    #[test]
    fn sections_are_sorted_by_waiting_time_and_the_others_are_one() {
        let Ranked { sections: ranked, others } = part(&[(1, 10), (2, 30), (3, 20), (4, 5)]).ranked(Some(2));
        assert_eq!(ranked.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 3]);
        let (number, others) = others.unwrap();
        assert_eq!((number, others.sum(), others.all().count()), (2, 15, 2));
    }

    #[test]
    fn what_is_evicted_is_kept_as_one() {
        let mut part = part(&[(1, 10), (2, 30), (3, 20)]);
        part.evict(|id| id != 2);
        assert_eq!(
            (part.evictions.len(), part.evicted.sum(), part.sections.len(), part.count()),
            (2, 30, 1, 3)
        );
    }
}
