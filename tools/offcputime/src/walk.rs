//! Threads that wait when the run begins or ends, found in /proc: where the kernel runs no iterators for us.
//!
//! At the beginning they are put into the hash where programs keep the threads that leave their CPUs, as if they had
//! just done so. At the end what is left in it waits still. Whether a thread stayed where it was while it was looked at
//! is told by the scheduler's account of it: the same that programs compare.

use std::collections::{HashMap, HashSet};
use std::fs;

use anyhow::{Context as _, Result};
use common::filter::Wanted;
use common::proc::{self, Schedstat};
use common::{cgroup, clock, maps};
use libbpf_rs::{ErrorKind, MapCore, MapFlags};

use crate::args::{Args, By};
use crate::asleep::{self, Entered, Stat};
use crate::bpf::types::{offcpu_task, offcpu_what};
use crate::stacks::{NONE, UNSEEN};
use crate::verdict::{Verdict, verdict};
use crate::waits::{Key, Sum, Waits};

// SAFETY: integers without padding; every bit pattern is valid.
unsafe impl plain::Plain for offcpu_task {}

/// Looked at before the end.
#[derive(Clone, Copy)]
struct Seen {
    account: Schedstat,
    kernel: u64,
}

pub struct Walk<'a> {
    /// `start_hash`.
    starts: &'a dyn MapCore,
    args: &'a Args,
    wanted: Wanted,
    /// Programs walk kernel stacks themselves when a wait is over.
    direct: bool,
    groups: cgroup::Tasks,
    seen: HashMap<u32, Seen>,
    map_full: u64,
    unmatched: u64,
    recovered: u64,
}

impl<'a> Walk<'a> {
    pub fn new(starts: &'a dyn MapCore, args: &'a Args, wanted: Wanted, direct: bool) -> Walk<'a> {
        let groups = cgroup::Tasks::default();
        let seen = HashMap::new();
        Walk { starts, args, wanted, direct, groups, seen, map_full: 0, unmatched: 0, recovered: 0 }
    }

    /// What it could not put anywhere, or found to be missing.
    pub fn missed(&self) -> [(&'static str, u64); 3] {
        [("map_full", self.map_full), ("unmatched", self.unmatched), ("recovered", self.recovered)]
    }

    /// Puts every thread that waits into the hash.
    pub fn begin(&mut self, waits: &mut Waits) {
        let own = std::process::id();
        let mut threads = Vec::new();
        for tgid in self.processes().into_iter().filter(|tgid| *tgid != own) {
            for tid in proc::threads(tgid).unwrap_or_default() {
                let Some(stat) = Stat::read(tgid, tid).filter(|stat| self.wants(tgid, tid, stat)) else {
                    continue;
                };
                if !stat.is_kernel() {
                    waits.note(tgid); // all of them first: their maps are read meanwhile
                }
                threads.push((tgid, tid));
            }
        }
        threads.into_iter().for_each(|(tgid, tid)| self.put(tgid, tid, waits));
    }

    fn processes(&self) -> Vec<u32> {
        let Wanted { pids, tids, command, .. } = &self.wanted;
        let all = || fs::read_dir("/proc").into_iter().flatten().flatten();
        match () {
            () if !pids.is_empty() => pids.clone(),
            () if command.is_some() => Vec::new(), // the command has not begun
            () if !tids.is_empty() => {
                let of: HashSet<u32> = tids.iter().filter_map(|tid| proc::tgid_of(*tid)).collect();
                of.into_iter().collect()
            }
            () => all().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect(),
        }
    }

    fn wants(&mut self, tgid: u32, tid: u32, stat: &Stat) -> bool {
        let Args { user_threads_only, kernel_threads_only, .. } = self.args;
        let Wanted { tids, comm, cgroups, command, .. } = &self.wanted;
        let text = comm.as_deref().unwrap_or_default().as_bytes();
        (tids.is_empty() || tids.contains(&tid))
            && !(*command == Some(tgid) && stat.is_new())
            && !(*user_threads_only && stat.is_kernel() || *kernel_threads_only && !stat.is_kernel())
            && (text.is_empty() || stat.comm.windows(text.len()).any(|part| part == text))
            && (cgroups.is_empty() || self.groups.ids(tid).iter().any(|id| cgroups.contains(id)))
    }

    fn put(&mut self, tgid: u32, tid: u32, waits: &mut Waits) {
        let account = asleep::account(tgid, tid);
        let entered = Entered::read(tgid, tid);
        let Some(stat) = Stat::read(tgid, tid) else { return };
        let is_wanted = stat.waits() && self.args.states().has(stat.state.into());
        if !is_wanted || entered == Entered::Running {
            return;
        }
        let user = match entered {
            _ if stat.is_kernel() || self.args.kernel_stacks_only => NONE,
            Entered::At(0, _) => NONE, // an io_uring worker
            Entered::At(ip, sp) => waits.unwind(tgid, (ip, sp)),
            Entered::Running | Entered::Unknown => UNSEEN,
        };
        let kernel = if self.direct { NONE } else { self.kernel_stack(tgid, tid, waits) };
        if asleep::account(tgid, tid) != account {
            return; // it has gone on: programs see it leave
        }
        let now = clock::monotonic();
        let task = offcpu_task {
            at: now,
            left: now,
            exec_ns: account.run_ns,
            arrivals: account.slices as u32, // as many bits as programs compare
            what: offcpu_what { user, kernel, state: stat.state, ..offcpu_what::default() },
            kept_user: user,
            kept_kernel: kernel,
            ..offcpu_task::default()
        };
        // SAFETY: `offcpu_task` has no padding, see above.
        let bytes = unsafe { plain::as_bytes(&task) };
        match self.starts.update(&tid.to_ne_bytes(), bytes, MapFlags::NO_EXIST) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => self.map_full += 1,
            _ => {} // done, or a program has seen it leave
        }
    }

    fn kernel_stack(&self, tgid: u32, tid: u32, waits: &mut Waits) -> u64 {
        if self.args.user_stacks_only {
            return NONE;
        }
        let depth = self.args.perf_max_stack_depth as usize;
        let places = asleep::kernel_stack(tgid, tid, depth);
        if places.is_empty() { UNSEEN } else { waits.stacks.put_kernel(places, depth) }
    }

    /// The run ends, and programs are still at work: who waits, and where? Who goes on later is known by that.
    pub fn look(&mut self, waits: &mut Waits) {
        // A key that is deleted meanwhile sends the iteration back to the start.
        let keys = self.starts.keys().take(2 * self.starts.max_entries() as usize);
        let tids: HashSet<u32> =
            keys.filter_map(|key| Some(u32::from_ne_bytes(*key.first_chunk()?))).collect();
        for tid in tids {
            let account = asleep::account(tid, tid);
            let mut kernel = NONE;
            if self.direct && !self.args.user_stacks_only {
                kernel = self.kernel_stack(tid, tid, waits);
                if asleep::account(tid, tid) != account {
                    kernel = UNSEEN;
                }
            }
            self.seen.insert(tid, Seen { account, kernel });
        }
    }

    /// Programs have stopped: counts what they have left in the hash.
    pub fn end(&mut self, waits: &mut Waits) -> Result<()> {
        self.groups = cgroup::Tasks::default(); // others may have the paths now
        let starts = self.starts;
        maps::drain(starts, |tid, task| {
            let tid = u32::from_ne_bytes(*tid.first_chunk().context("a key of another shape")?);
            let task: &offcpu_task = plain::from_bytes(task).ok().context("a value of another shape")?;
            self.count(tid, task, waits);
            Ok(())
        })
    }

    fn count(&mut self, tid: u32, task: &offcpu_task, waits: &mut Waits) {
        let tgid = proc::tgid_of(tid);
        let pool = &task.pool;
        if pool.ns > 0 {
            let sum = Sum {
                ns: pool.ns,
                count: pool.count.into(),
                longest: pool.longest,
                pooled: pool.ns,
                comm: Vec::new(),
            };
            match tgid {
                Some(tgid) => self.add(tgid, tid, &pool.what, false, &sum, waits),
                None => waits.add_homeless(&sum), // it has ended, and was not seen to
            }
        }
        let seen = self.seen.get(&tid).copied();
        let (verdict, times) = (verdict(task, seen.map(|seen| seen.account), waits.times), waits.times);
        let (mut what, Some((tgid, seen))) = (task.what, tgid.zip(seen)) else {
            self.unmatched += u64::from(verdict != Verdict::Over);
            return;
        };
        let (ns, whole, still) = match verdict {
            Verdict::Over => return,
            Verdict::Unmatched => {
                self.unmatched += 1;
                return;
            }
            Verdict::Still(ns) => {
                if self.direct {
                    what.kernel = seen.kernel;
                }
                (ns, times.until - task.left, true)
            }
            Verdict::Recovered { ns, whole, once } => {
                self.recovered += 1;
                if self.direct || !once {
                    what.kernel = UNSEEN;
                }
                if !once {
                    what.user = UNSEEN;
                }
                (ns, whole, false)
            }
        };
        if !self.args.length_wanted(whole) {
            return;
        }
        waits.keep_user(what.user, &task.user, &task.top);
        let sum = Sum { ns, count: 1, longest: ns, ..Sum::default() };
        self.add(tgid, tid, &what, still, &sum, waits);
    }

    fn add(&mut self, tgid: u32, tid: u32, what: &offcpu_what, still: bool, sum: &Sum, waits: &mut Waits) {
        let by = self.args.by;
        let named = if by == Some(By::Process) { tgid } else { tid };
        let comm = Stat::read(named, named).map(|stat| stat.comm).unwrap_or_default();
        let cgroup =
            if by == Some(By::Cgroup) { self.groups.ids(tid).first().copied().unwrap_or(0) } else { 0 };
        let tid = if matches!(by, None | Some(By::Stack | By::Thread)) { tid } else { 0 };
        waits.note(tgid);
        waits.add(Key::of(what, (tgid, tid), cgroup, still), &Sum { comm, ..sum.clone() });
    }

    /// The stacks that threads under way refer to.
    pub fn in_use(&self) -> HashSet<u64> {
        let keys = self.starts.keys().take(2 * self.starts.max_entries() as usize);
        let tasks = keys.filter_map(|key| self.starts.lookup(&key, MapFlags::ANY).ok()?);
        let mut used = HashSet::new();
        for task in tasks {
            let Ok(task) = plain::from_bytes::<offcpu_task>(&task) else { continue };
            used.extend([task.what, task.pool.what].iter().flat_map(|what| [what.user, what.kernel]));
        }
        used
    }
}
