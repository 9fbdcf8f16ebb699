//! Reads what a process prints while it runs, so that it never waits for us.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::env;

#[derive(Default)]
struct Shared {
    bytes: Vec<u8>,
    lines: usize,
    ended: bool,
}

/// A stream that is being read to its end.
pub struct Drain {
    shared: Arc<(Mutex<Shared>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

impl Drain {
    /// Reads everything; with `lines`, only so many lines, and then closes the stream as `head` does.
    pub fn new(mut from: impl Read + Send + 'static, lines: Option<usize>) -> Drain {
        let shared = Arc::new((Mutex::new(Shared::default()), Condvar::new()));
        let ours = Arc::clone(&shared);
        let reader = thread::spawn(move || {
            let (state, changed) = &*ours;
            let mut chunk = vec![0; 1 << 16];
            loop {
                let n = from.read(&mut chunk).unwrap_or(0);
                let mut state = state.lock().unwrap();
                state.bytes.extend_from_slice(&chunk[..n]);
                state.lines += count_lines(&chunk[..n]);
                let enough = lines.is_some_and(|wanted| state.lines >= wanted);
                if n == 0 || enough {
                    state.ended = true;
                    changed.notify_all();
                    return; // and closes `from`
                }
                changed.notify_all();
            }
        });
        Drain { shared, reader: Some(reader) }
    }

    /// Waits for so many whole lines or the end of the stream; what there is by then.
    pub fn wait_lines(&self, wanted: usize) -> Vec<u8> {
        self.wait(wanted).bytes.clone()
    }

    fn wait(&self, wanted: usize) -> MutexGuard<'_, Shared> {
        let deadline = Instant::now() + env::patience();
        let (_, changed) = &*self.shared;
        let mut state = self.lock();
        while !state.ended && state.lines < wanted && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            state = changed.wait_timeout(state, left).unwrap().0;
        }
        state
    }

    /// What has come so far.
    pub fn so_far(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// Waits for the end of the stream. A process that outlives its parent may keep it open: then what
    /// there is by the deadline.
    pub fn finish(mut self) -> Vec<u8> {
        let mut state = self.wait(usize::MAX);
        let bytes = std::mem::take(&mut state.bytes);
        let ended = state.ended;
        drop(state);
        if let (true, Some(reader)) = (ended, self.reader.take()) {
            reader.join().unwrap();
        }
        bytes
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.0.lock().unwrap()
    }
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|b| **b == b'\n').count()
}
