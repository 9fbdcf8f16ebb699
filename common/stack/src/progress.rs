//! A line about the search for names, for who waits at a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Silence before the first line.
const PATIENCE: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(200);

pub struct Progress {
    tool: &'static str,
    calls: usize,
    passed: usize,
    terminal: bool,
    next: Instant,
    shown: bool,
}

impl Progress {
    pub fn new(tool: &'static str, calls: usize) -> Progress {
        let terminal = io::stderr().is_terminal();
        Progress { tool, calls, passed: 0, terminal, next: Instant::now() + PATIENCE, shown: false }
    }

    pub fn step(&mut self) {
        self.passed += 1;
        self.show();
    }

    pub fn show(&mut self) {
        if !self.terminal || Instant::now() < self.next {
            return;
        }
        let line = line(self.tool, self.passed, self.calls);
        // Who cannot be told is not told.
        let _ = write!(io::stderr(), "\r{line}\x1b[K");
        self.shown = true;
        self.next = Instant::now() + EVERY;
    }
}

fn line(tool: &str, passed: usize, calls: usize) -> String {
    format!("{tool}: looking up names: {passed} of {calls} processes (Ctrl-C ends it)")
}

/// What comes next starts on a line of its own.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
