//! Reads what processes have mapped, on a thread of its own: the lock that guards a process's maps can be
//! held by one that hangs, as everybody knows for whom ps(1) has hung. We are called to find such processes.
//! And whoever takes events out of a ring buffer does not wait for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

use crate::files::{Files, Opened, open};
use crate::jit;
use crate::maps;
use crate::process::{PROCESSES, Processes, image, is_generated};

/// What is known of the processes of a run.
pub struct Registry {
    pub processes: Processes,
    pub files: Files,
    /// Looks to be taken at processes, numbered.
    queue: VecDeque<(u32, u64)>,
    /// The process that each reader is at, and since when.
    at: Vec<Option<(u32, Instant)>>,
    closed: bool,
}

impl Registry {
    /// Nobody will come for what is in the queue.
    fn all_hang(&self) -> bool {
        self.at.iter().all(|at| at.is_some_and(|(_, since)| since.elapsed() > HANGS))
    }

    fn hangs(&self, tgid: u32) -> bool {
        self.at.iter().flatten().any(|(at, since)| *at == tgid && since.elapsed() > HANGS)
    }
}

/// The maps of a process, and which of its threads has told them.
type Maps = fn(u32) -> Option<(u32, Vec<u8>)>;

struct Shared {
    registry: Mutex<Registry>,
    asked: Condvar,
    answered: Condvar,
    maps: Maps,
}

pub struct Reader {
    shared: Arc<Shared>,
    /// The last look that was asked for, of each process.
    asked: HashMap<u32, u64>,
    looks: u64,
}

/// Reading maps takes less than a millisecond.
const HANGS: Duration = Duration::from_secs(1);
/// For one process in the end, on a machine that has no time for us.
const PATIENCE: Duration = Duration::from_secs(3);
const MOMENT: Duration = Duration::from_millis(500);
/// Between two looks at whether to go on.
const LOOK: Duration = Duration::from_millis(50);
/// Readers, all but one of which hang.
const READERS: usize = 16;

impl Reader {
    pub fn new(limit: usize, maps: Maps) -> Reader {
        let (processes, files) = (Processes::default(), Files::new(limit));
        let registry = Registry { processes, files, queue: VecDeque::new(), at: Vec::new(), closed: false };
        let (asked, answered) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { registry: Mutex::new(registry), asked, answered, maps });
        Reader { shared, asked: HashMap::new(), looks: 0 }
    }

    pub fn is_known(&self, tgid: u32) -> bool {
        self.asked.contains_key(&tgid)
    }

    /// Asks for a look at a process, and does not wait for it.
    pub fn ask(&mut self, tgid: u32) {
        if self.asked.len() >= 2 * PROCESSES {
            self.asked.clear(); // those that still live are asked again
        }
        self.looks += 1;
        self.asked.insert(tgid, self.looks);
        let mut registry = self.shared.lock();
        registry.queue.push_back((tgid, self.looks));
        if registry.all_hang() {
            self.start(registry);
        }
        self.shared.asked.notify_one();
    }

    /// The registry, with the answer about a process in it unless that one hangs or `go_on` says no.
    pub fn wait(&mut self, tgid: u32, go_on: &mut dyn FnMut() -> bool) -> MutexGuard<'_, Registry> {
        let look = self.asked.get(&tgid).copied().unwrap_or(0);
        let start = Instant::now();
        let mut registry = self.shared.lock();
        loop {
            let answered = registry.processes.get(tgid).is_some_and(|process| process.answered >= look);
            let elapsed = start.elapsed();
            // Even who will not wait waits a moment: without maps an address is nowhere.
            let enough = elapsed > PATIENCE || elapsed > MOMENT && !go_on();
            if answered || enough || registry.hangs(tgid) {
                return registry;
            }
            if registry.all_hang() {
                self.start(registry);
                registry = self.shared.lock();
            }
            let waited = self.shared.answered.wait_timeout(registry, LOOK);
            registry = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn start(&self, mut registry: MutexGuard<'_, Registry>) {
        if registry.at.len() >= READERS {
            return;
        }
        let index = registry.at.len();
        registry.at.push(None);
        drop(registry);
        let shared = Arc::clone(&self.shared);
        let run = move || {
            let _ = SigSet::all().thread_block(); // signals are the main thread's
            while let Some(next) = shared.next(index) {
                shared.look(index, next);
            }
        };
        if thread::Builder::new().name("maps".to_owned()).spawn(run).is_err() {
            // No thread can be had, on a machine that is full of them: what waits is done here.
            let mut registry = self.shared.lock();
            while let Some(next) = registry.queue.pop_front() {
                drop(registry);
                self.shared.look(index, next);
                registry = self.shared.lock();
            }
            registry.at.remove(index);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.asked.notify_all();
    }
}

impl Shared {
    /// A reader that panicked has left nothing half done that matters.
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, index: usize) -> Option<(u32, u64)> {
        let mut registry = self.lock();
        loop {
            if registry.closed {
                return None;
            }
            if let Some((tgid, look)) = registry.queue.pop_front() {
                registry.at[index] = Some((tgid, Instant::now()));
                return Some((tgid, look));
            }
            registry = self.asked.wait(registry).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whatever may hang is done without the lock.
    fn look(&self, index: usize, (tgid, look): (u32, u64)) {
        let told = (self.maps)(tgid);
        let mut image_now = None;
        let mut perf_map = None;
        let mut registry = self.lock();
        if let Some((tid, bytes)) = told {
            let wanted: Vec<_> = maps::parse(&bytes).filter(|line| registry.files.wants(line)).collect();
            let makes_code =
                registry.processes.wants_perf_map(tgid) && maps::parse(&bytes).any(|l| is_generated(&l));
            let at_once = registry.files.at_once();
            drop(registry);
            let mut opened: HashMap<u64, Opened> = HashMap::new();
            for line in wanted {
                if let Some((file, identity)) = open(tid, &line) {
                    let file = file.filter(|_| opened.len() < at_once);
                    opened.insert(line.start, (file, identity));
                }
            }
            perf_map = if makes_code { jit::open(tgid) } else { None };
            registry = self.lock();
            let files = &mut registry.files;
            image_now = Some(image(&bytes, |line| files.note(tid, line, opened.remove(&line.start))));
        }
        registry.processes.answer(tgid, look, image_now, perf_map);
        if let Some(at) = registry.at.get_mut(index) {
            *at = None;
        }
        drop(registry);
        self.answered.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Process 1 hangs, and 2 has a page of memory.
    fn maps(tgid: u32) -> Option<(u32, Vec<u8>)> {
        if tgid == 1 {
            loop {
                thread::park();
            }
        }
        Some((tgid, b"1000-2000 r-xp 0 00:00 0 [heap]\n".to_vec()))
    }

    #[test]
    fn one_process_that_hangs_does_not_hold_up_the_others() {
        let mut reader = Reader::new(16, maps);
        let start = Instant::now();
        reader.ask(1);
        reader.ask(2);
        assert!(start.elapsed() < HANGS, "asking does not wait");
        assert!(reader.wait(2, &mut || true).processes.get(2).unwrap().find(0x1000).is_some());
        assert!(reader.wait(1, &mut || true).processes.get(1).is_none());
        assert!(start.elapsed() < PATIENCE);
    }

    #[test]
    fn who_waits_can_stop() {
        let mut reader = Reader::new(16, maps);
        let start = Instant::now();
        reader.ask(1);
        drop(reader.wait(1, &mut || false));
        assert!(start.elapsed() < HANGS);
    }

    #[test]
    fn the_answer_is_that_to_the_last_question() {
        let mut reader = Reader::new(16, maps);
        for _ in 0..100 {
            reader.ask(2);
        }
        assert_eq!(reader.wait(2, &mut || true).processes.get(2).unwrap().answered, 100);
    }
}
