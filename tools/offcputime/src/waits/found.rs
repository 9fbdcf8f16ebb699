//! Waits that no program counts: threads found in /proc.

use std::time::Instant;

use super::{Key, STILL, Sum, Waits};
use crate::blocked;
use crate::bpf::types;
use crate::stacks::{Stack, Top};

impl Key {
    /// `tgid` and `tid`, or 0 where threads are not kept apart.
    pub fn of(what: &types::offcpu_what, (tgid, tid): (u32, u32), cgroup: u64, still: bool) -> Key {
        let &types::offcpu_what { user, kernel, waker, state, flags, .. } = what;
        let flags = if still { flags | STILL } else { flags };
        Key { user, kernel, waker, cgroup, tgid, tid, state, flags }
    }
}

impl Waits<'_> {
    /// A process is met: it is looked at for the names of its functions.
    pub fn note(&mut self, tgid: u32) {
        if self.looked.insert(tgid, Instant::now()).is_none() {
            self.symbols.note(tgid);
        }
    }

    /// The user stack of a thread that stands still, of which only its address and its stack pointer are known.
    pub fn unwind(&mut self, tgid: u32, regs: (u64, u64)) -> u64 {
        let memory = blocked::memory(tgid);
        let ips = self.symbols.unwind(tgid, regs, self.depth, &memory);
        self.stacks.put_user(ips, self.depth)
    }

    /// A stack that a program has walked and sent to nobody yet.
    pub fn keep_user(&mut self, hash: u64, stack: &types::stack, top: &types::stack_top) {
        let (frames, words) = (stack.frames as usize, (top.frames as usize).saturating_sub(2));
        let Some(ips) = stack.ip.get(..frames).filter(|ips| hash == stack.hash && !ips.is_empty()) else {
            return;
        };
        let top = top.word.get(..words).filter(|_| top.frames > 0 && top.hash == hash).map(|words| Top {
            sp: top.sp,
            fp: top.fp,
            words: words.into(),
        });
        self.stacks.put_left(hash, Stack { ips: ips.into(), cut: stack.end == super::DEEP }, top);
    }

    pub fn add(&mut self, key: Key, sum: &Sum) {
        self.part.rows.entry(key).or_default().add(sum);
    }

    /// Waits of somebody who has gone.
    pub fn add_homeless(&mut self, sum: &Sum) {
        self.part.homeless.add(sum);
    }
}
