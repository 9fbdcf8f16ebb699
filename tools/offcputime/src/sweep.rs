//! The look at all threads when the run begins, and when a part of it ends.

use std::collections::HashSet;

use anyhow::Result;
use common::coverage::Coverage;
use common::hook::{Ladder, Links, Via};
use common::kernel::Kernel;
use common::object;
use libbpf_rs::Object;

use crate::hooks;
use crate::waits::Waits;
use crate::walk::Walk;

pub enum Sweep<'a> {
    /// By this iterator.
    Iter(&'static str),
    Proc(Box<Walk<'a>>),
}

/// The iterator that was chosen; none: the way is through /proc.
pub fn iterator(kernel: &Kernel, ladder: &Ladder) -> Option<&'static str> {
    match ladder.via(hooks::SWEEP.what) {
        Some(Via::Proc) => None,
        Some(Via::SleepableIter(_)) => Some("sweep_sleeping"),
        _ if kernel.has_cmpxchg() => Some("sweep"),
        _ => Some("sweep_plain"),
    }
}

impl Sweep<'_> {
    /// Who waits already?
    pub fn begin(&mut self, links: &Links, waits: &mut Waits) -> Result<()> {
        match self {
            Sweep::Iter(program) => links.iterate(program)?,
            Sweep::Proc(walk) => walk.begin(waits),
        }
        Ok(())
    }

    /// Who waits still, at `waits.times.until`? The `last` time twice: what is under way is looked at before the
    /// programs stop, and what they have left over after that.
    pub fn end(&mut self, object: &Object, links: &Links, waits: &mut Waits, last: bool) -> Result<()> {
        if last {
            object::ending(object)?;
        }
        match self {
            Sweep::Iter(program) => links.iterate(program)?,
            Sweep::Proc(walk) if last => walk.look(waits),
            Sweep::Proc(_) => {}
        }
        if last {
            object::end(object)?;
            match self {
                Sweep::Iter(program) => links.iterate(program)?,
                Sweep::Proc(walk) => walk.end(waits)?,
            }
        }
        Ok(())
    }

    /// Stacks of waits that a part does not list, though they are under way.
    pub fn in_use(&self) -> HashSet<u64> {
        match self {
            Sweep::Iter(_) => HashSet::new(),
            Sweep::Proc(walk) => walk.in_use(),
        }
    }

    /// What it has missed itself.
    pub fn add_to(&self, coverage: &mut Coverage) {
        if let Sweep::Proc(walk) = self {
            walk.missed().iter().for_each(|(why, number)| coverage.add(why, *number));
        }
    }
}
