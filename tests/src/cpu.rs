//! Where a task runs, and what the kernel's own books say of it.

use std::fs;
use std::io;

use crate::{env, wait_until};

/// The CPUs that this process may use.
#[must_use]
pub fn allowed() -> Vec<usize> {
    // SAFETY: a zeroed set is an empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is as large as said.
    let done = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    assert_eq!(done, 0, "sched_getaffinity: {}", io::Error::last_os_error());
    // SAFETY: the index is below the size of the set.
    (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// The last CPU: interrupts tend to go to the first.
#[must_use]
pub fn last() -> usize {
    *allowed().last().expect("a CPU")
}

/// Makes the caller stay on one CPU. System calls only.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: a zeroed set is an empty one, and CPU_SET checks its index.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        set
    };
    // SAFETY: the set is as large as said.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The kernel's account of a process: all of its threads that are still there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// Time on a CPU, in microseconds.
    pub run: f64,
    /// Time in the run queue, in microseconds.
    pub delay: f64,
    /// How often it got a CPU after waiting for one. schedstat leaves out who was preempted on the way to
    /// sleep (sched_info_depart() looks at the state alone); every switch is in the other two.
    pub arrivals: u64,
    /// Switched out by its own will, and against it.
    pub voluntary: u64,
    pub involuntary: u64,
}

impl Account {
    /// Of all threads of a process.
    #[must_use]
    #[track_caller]
    pub fn of(pid: u32) -> Account {
        tids(pid).into_iter().map(|tid| Account::of_thread(pid, tid)).fold(Account::default(), Account::plus)
    }

    #[must_use]
    #[track_caller]
    pub fn of_thread(pid: u32, tid: u32) -> Account {
        let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{name}")).unwrap();
        let schedstat = file("schedstat");
        let numbers: Vec<u64> = schedstat.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let status = file("status");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Account {
            run: numbers[0] as f64 / 1000.0,
            delay: numbers[1] as f64 / 1000.0,
            arrivals: numbers[2],
            voluntary: field("voluntary_ctxt_switches"),
            involuntary: field("nonvoluntary_ctxt_switches"),
        }
    }

    #[must_use]
    pub fn plus(self, other: Account) -> Account {
        Account {
            run: self.run + other.run,
            delay: self.delay + other.delay,
            arrivals: self.arrivals + other.arrivals,
            voluntary: self.voluntary + other.voluntary,
            involuntary: self.involuntary + other.involuntary,
        }
    }

    #[must_use]
    pub fn since(self, earlier: Account) -> Account {
        let voluntary = self.voluntary - earlier.voluntary;
        let involuntary = self.involuntary - earlier.involuntary;
        let arrivals = (self.arrivals - earlier.arrivals).max(voluntary + involuntary);
        let run = self.run - earlier.run;
        Account { run, delay: self.delay - earlier.delay, arrivals, voluntary, involuntary }
    }
}

/// The waits that a tool has counted are all that the kernel has booked, but for those that the tool says
/// it lost.
///
/// A few more may be missing: under some hypervisors tracepoints do not fire for every wakeup and switch, for
/// any tracer (docs/runqlat.md, "Caveats"), and of a wait of which neither end was seen nothing tells. In an
/// emulated machine that can only be a task's last one.
#[track_caller]
pub fn assert_all(count: u64, lost: u64, booked: u64) {
    let unseen = if env::is_tcg() { 1 } else { 4 + booked / 25 };
    assert!(count <= booked, "{count} waits counted, the kernel knows of {booked} only");
    assert!(count + lost + unseen >= booked, "{count} waits counted and {lost} lost, of {booked}");
    assert!(lost <= 3 + booked / 10, "{lost} of {booked} waits lost: that is no exception");
}

/// Waits until all threads of a process sleep: only then is the kernel's account of them at rest.
#[track_caller]
pub fn settle(pid: u32) {
    wait_until("all of it sleeps", || {
        // One that has ended since is not asleep: the next look is without it.
        let asleep = |tid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" S"))
        };
        tids(pid).iter().all(asleep).then_some(())
    });
}

/// The threads of a process, the first one first.
#[must_use]
#[track_caller]
pub fn tids(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut tids: Vec<u32> =
        entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    tids.sort_by_key(|tid| (*tid != pid, *tid));
    tids
}
