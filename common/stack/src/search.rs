//! The search for names in files, on a thread of its own: a library of a gigabyte takes seconds, and a file
//! server that has gone never answers. Whoever waits can stop waiting.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

use crate::cfi::Rule;
use crate::elf::{Elfs, Found};
use crate::files::Source;
use crate::rules::Rules;

/// Into one file.
pub enum Request {
    /// The names at offsets.
    Names(Source, Vec<u64>),
    /// How to find the caller of the function at an offset.
    Rule(u32, Source, u64),
}

enum Answer {
    Names(Vec<Option<Found>>),
    Rule(Option<Rule>),
}

struct Worker {
    elfs: Elfs,
    rules: Rules,
}

impl Worker {
    fn new(lines: bool, limit: usize) -> Worker {
        Worker { elfs: Elfs::new(lines, limit), rules: Rules::default() }
    }

    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Names(source, offsets) => Answer::Names(self.elfs.find(&source, &offsets)),
            Request::Rule(file, source, offset) => Answer::Rule(self.rules.find(file, &source, offset)),
        }
    }
}

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
    ) -> Option<Vec<Option<Found>>> {
        match self.ask(Request::Names(source, offsets), go_on)? {
            Answer::Names(names) => Some(names),
            Answer::Rule(_) => None,
        }
    }

    /// How to find the caller of the function at an offset into a file. None as well if there is no rule.
    pub fn rule(
        &mut self,
        file: u32,
        source: Source,
        offset: u64,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Option<Rule> {
        match self.ask(Request::Rule(file, source, offset), go_on)? {
            Answer::Rule(rule) => rule,
            Answer::Names(_) => None,
        }
    }

    fn ask(&mut self, request: Request, go_on: &mut dyn FnMut() -> bool) -> Option<Answer> {
        if self.worker.is_none() {
            self.worker = worker(self.lines, self.limit);
        }
        let Some((requests, answers)) = &self.worker else {
            // No thread can be had, on a machine that is full of them.
            return Some(Worker::new(self.lines, self.limit).answer(request));
        };
        let start = Instant::now();
        let mut waits = requests.send(request).is_ok();
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
        let mut worker = Worker::new(lines, limit);
        for request in work {
            if results.send(worker.answer(request)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("symbols".to_owned()).spawn(run).ok()?;
    Some((requests, answers))
}
