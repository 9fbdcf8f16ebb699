//! Waiting for a condition, with a deadline as backstop.

use std::thread;
use std::time::{Duration, Instant};

use crate::env;

/// Polls until `ready` gives something; `None` when `limit` has passed.
pub fn eventually<T>(limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(found) = ready() {
            return Some(found);
        }
        if start.elapsed() > limit {
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Polls until `ready` gives something, and fails the test if it never does.
#[track_caller]
pub fn wait_until<T>(what: &str, ready: impl FnMut() -> Option<T>) -> T {
    let limit = env::patience();
    match eventually(limit, ready) {
        Some(found) => found,
        None => panic!("gave up after {} s: {what}", limit.as_secs()),
    }
}
