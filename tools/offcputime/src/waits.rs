//! The waits of a run, taken from the kernel: counters by thread and stacks, and the stacks themselves.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use common::events::Events;
use common::maps::{self, Pair};
use common::text::until_nul;
use libbpf_rs::{MapCore, MapFlags};
use stack::Symbols;

use crate::blocked;
use crate::bpf::OffcputimeMaps;
use crate::bpf::types::{offcpu_cell, offcpu_key};
use crate::size::Budget;
use crate::stacks::{DEEP, News, Stacks};
use crate::times::Times;

mod found;

// SAFETY: integers and bytes without padding; every bit pattern is valid.
unsafe impl plain::Plain for offcpu_key {}
// SAFETY: as above.
unsafe impl plain::Plain for offcpu_cell {}

/// `enum flags` of `bpf/lib/offcpu_task.bpf.h`.
const PREEMPTED: u8 = 1;
const STILL: u8 = 2;

/// Whose waits, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub user: u64,
    pub kernel: u64,
    pub waker: u64,
    pub cgroup: u64,
    pub tgid: u32,
    pub tid: u32,
    pub state: u8,
    flags: u8,
}

impl Key {
    /// It could have gone on.
    pub fn preempted(&self) -> bool {
        self.flags & PREEMPTED != 0
    }

    /// It had not come back when the run, or the interval, was over.
    pub fn still(&self) -> bool {
        self.flags & STILL != 0
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub ns: u64,
    pub count: u64,
    pub longest: u64,
    /// Of `ns`: what was drawn.
    pub pooled: u64,
    pub comm: Vec<u8>,
}

impl Sum {
    pub fn add(&mut self, other: &Sum) {
        self.ns += other.ns;
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
        self.pooled += other.pooled;
        if self.comm.is_empty() {
            self.comm.clone_from(&other.comm);
        }
    }
}

/// One part of the run.
#[derive(Default)]
pub struct Part {
    pub rows: HashMap<Key, Sum>,
    /// Waits that found the counters full: whose they are is not known.
    pub homeless: Sum,
}

pub struct Waits<'a> {
    events: Events,
    cells: Pair<'a>,
    homeless: &'a dyn MapCore,
    seen: &'a dyn MapCore,
    homeless_before: Sum,
    /// Waits whose stack could not be kept, or not named for want of room.
    pub not_kept: Sum,
    pub stacks: Stacks,
    pub symbols: Symbols,
    pub times: Times,
    looked: HashMap<u32, Instant>,
    /// Frames of a stack at most.
    depth: usize,
    part: Part,
}

/// A process is not looked at more often: its maps are read for names, in case it exits.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

const SETTLE: Duration = Duration::from_millis(500);

impl<'a> Waits<'a> {
    pub fn new(
        maps: &'a OffcputimeMaps<'a>,
        budget: Budget,
        depth: usize,
        symbols: Symbols,
    ) -> Result<Waits<'a>> {
        Ok(Waits {
            events: Events::new(&maps.ring)?,
            cells: Pair::new(&maps.cells_active, &maps.cells_a, &maps.cells_b)?,
            homeless: &maps.homeless,
            seen: &maps.seen_stacks,
            homeless_before: Sum::default(),
            not_kept: Sum::default(),
            stacks: Stacks::new(budget),
            symbols,
            times: Times::default(),
            looked: HashMap::new(),
            depth,
            part: Part::default(),
        })
    }

    pub fn events(&mut self) -> &mut Events {
        &mut self.events
    }

    /// Takes the stacks that have come, and the counters if they would be full soon.
    pub fn look(&mut self) -> Result<()> {
        if self.take_stacks()? { self.collect() } else { Ok(()) }
    }

    /// Waits until the processes that were met so far are noted: those that end at once keep their names. On a machine
    /// with thousands of them that goes on while tracing does.
    pub fn settle(&mut self) {
        let start = Instant::now();
        for tgid in self.looked.keys() {
            self.symbols.user(*tgid, &[]);
            if start.elapsed() > SETTLE {
                return;
            }
        }
    }

    /// Everything since the last part.
    pub fn part(&mut self) -> Result<Part> {
        self.collect()?;
        // After the counters: a stack is sent before it is counted.
        self.take_stacks()?;
        let all = self.read_homeless()?;
        let before = std::mem::replace(&mut self.homeless_before, all.clone());
        self.part.homeless.ns += all.ns - before.ns;
        self.part.homeless.count += all.count - before.count;
        let part = std::mem::take(&mut self.part);
        let has = |hash| self.stacks.has(hash);
        for (_, sum) in part.rows.iter().filter(|(key, _)| !has(key.user) || !has(key.kernel)) {
            self.not_kept.add(sum);
        }
        self.not_kept.add(&part.homeless);
        Ok(part)
    }

    /// Is there no room for more counters soon?
    fn take_stacks(&mut self) -> Result<bool> {
        let mut full = false;
        let mut seen = HashSet::new();
        let stacks = &mut self.stacks;
        let mut images = HashSet::new();
        let mut blocked = Vec::new();
        self.events.drain(true, |record| {
            match stacks.take(record).context("a record of another shape")? {
                News::Nothing => {}
                News::Process(tgid) => drop(seen.insert(tgid)),
                News::Image(tgid) => drop(images.insert(tgid)),
                News::Blocked(hash, regs) => blocked.push((hash, regs)),
                News::Full => full = true,
            }
            Ok(())
        })?;
        for (hash, regs) in blocked {
            stacks.put(hash, blocked::walk(&regs, self.depth), self.depth);
            seen.insert(regs.tgid);
        }
        let now = Instant::now();
        for tgid in seen.union(&images) {
            let last = self.looked.insert(*tgid, now);
            if images.contains(tgid) || last.is_none_or(|last| now - last >= LOOK_AGAIN) {
                self.symbols.note_again(*tgid);
            }
        }
        Ok(full)
    }

    fn collect(&mut self) -> Result<()> {
        let left = self.cells.flip()?;
        let rows = &mut self.part.rows;
        maps::drain(left, |key, cell| {
            let key: &offcpu_key = plain::from_bytes(key).ok().context("a key of another shape")?;
            let cell: &offcpu_cell = plain::from_bytes(cell).ok().context("a value of another shape")?;
            let key = Key {
                user: key.user,
                kernel: key.kernel,
                waker: key.waker,
                cgroup: key.cgroup,
                tgid: key.tgid,
                tid: key.tid,
                state: key.state,
                flags: key.flags,
            };
            let sum = Sum {
                ns: cell.ns,
                count: cell.count,
                longest: cell.longest,
                pooled: cell.pooled,
                comm: until_nul(&cell.comm),
            };
            rows.entry(key).or_default().add(&sum);
            Ok(())
        })
    }

    /// Between two parts of a long run: makes room for stacks, where there is little. The programs will
    /// send those again that they meet again. `under_way`: of waits that the part does not list. True: they have
    /// to be told.
    pub fn make_room(&mut self, part: &Part, under_way: impl FnOnce() -> HashSet<u64>) -> bool {
        if !self.stacks.is_half_full() {
            return false;
        }
        let wakers = part.rows.keys().filter_map(|key| self.stacks.waker(key.waker));
        let wakers: Vec<u64> = wakers.flat_map(|waker| [waker.user, waker.kernel]).collect();
        let used = part
            .rows
            .keys()
            .flat_map(|key| [key.user, key.kernel])
            .chain(wakers)
            .chain(under_way())
            .collect();
        let gone = self.stacks.make_room(&used);
        for hash in &gone {
            let _ = self.seen.delete(&hash.to_ne_bytes()); // it may be gone there, too
        }
        !gone.is_empty()
    }

    fn read_homeless(&self) -> Result<Sum> {
        let per_cpu = self.homeless.lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
        let mut sum = Sum::default();
        for cell in &per_cpu {
            sum.ns += maps::u64_at(cell, 0).unwrap_or(0);
            sum.count += maps::u64_at(cell, 8).unwrap_or(0);
        }
        Ok(sum)
    }
}
