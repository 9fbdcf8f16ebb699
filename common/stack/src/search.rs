//! The search for names in files, on a thread of its own: a library of a gigabyte takes seconds, and a file
//! server that has gone never answers. Whoever waits can stop waiting.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

use crate::elf::{Elfs, Found};
use crate::files::Source;

type Request = (Source, Vec<u64>);
type Answer = Vec<Option<Found>>;

pub struct Search {
    lines: bool,
    limit: usize,
    worker: Option<(Sender<Request>, Receiver<Answer>)>,
}

/// Between two looks at whether to go on.
const LOOK: Duration = Duration::from_millis(50);
/// For one file. No file that is there takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

impl Search {
    pub fn new(lines: bool, limit: usize) -> Search {
        Search { lines, limit, worker: None }
    }

    /// Names for offsets into a file, in their order; none if it took too long or `go_on` said no.
    pub fn find(
        &mut self,
        source: Source,
        offsets: Vec<u64>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Option<Answer> {
        if self.worker.is_none() {
            self.worker = worker(self.lines, self.limit);
        }
        let Some((requests, answers)) = &self.worker else {
            // No thread can be had, on a machine that is full of them.
            return Some(Elfs::new(self.lines, self.limit).find(&source, &offsets));
        };
        let start = Instant::now();
        let mut waits = requests.send((source, offsets)).is_ok();
        while waits {
            match answers.recv_timeout(LOOK) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Timeout) => waits = go_on() && start.elapsed() < PATIENCE,
                Err(RecvTimeoutError::Disconnected) => waits = false,
            }
        }
        self.worker = None; // left alone with its file; the next one gets another
        None
    }
}

fn worker(lines: bool, limit: usize) -> Option<(Sender<Request>, Receiver<Answer>)> {
    let (requests, work) = channel::<Request>();
    let (results, answers) = channel();
    let run = move || {
        let _ = SigSet::all().thread_block(); // signals are the main thread's
        let mut elfs = Elfs::new(lines, limit);
        for (source, offsets) in work {
            if results.send(elfs.find(&source, &offsets)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("symbols".to_owned()).spawn(run).ok()?;
    Some((requests, answers))
}
