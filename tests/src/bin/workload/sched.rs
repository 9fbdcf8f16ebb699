//! Work for the scheduler.

use std::io::{Read as _, Write as _, pipe};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Done, Outcome};

type Ready<'a> = &'a dyn Fn() -> Result<(), String>;

pub fn spin(seconds: f64, ready: Ready<'_>) -> Outcome {
    let length = Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())?;
    ready()?;
    let start = Instant::now();
    while start.elapsed() < length {
        std::hint::spin_loop();
    }
    Ok(Done::Ok)
}

pub fn nap(count: u64, micros: u64, ready: Ready<'_>) -> Outcome {
    ready()?;
    for _ in 0..count {
        thread::sleep(Duration::from_micros(micros));
    }
    Ok(Done::Ok)
}

pub fn threads(count: u64, ready: Ready<'_>) -> Outcome {
    const AT_ONCE: u64 = 64;
    ready()?;
    let mut left = count;
    while left > 0 {
        let now = left.min(AT_ONCE);
        let batch: Vec<_> =
            (0..now).map(|_| thread::spawn(|| thread::sleep(Duration::from_millis(1)))).collect();
        for thread in batch {
            thread.join().map_err(|_| "a thread panicked".to_owned())?;
        }
        left -= now;
    }
    Ok(Done::Ok)
}

pub fn pingpong(count: u64, ready: Ready<'_>) -> Outcome {
    let ends = || pipe().map_err(|e| format!("pipe: {e}"));
    let (mut ping_read, mut ping_write) = ends()?;
    let (mut pong_read, mut pong_write) = ends()?;
    ready()?;
    let other = thread::spawn(move || {
        let mut byte = [0];
        while ping_read.read_exact(&mut byte).is_ok() && pong_write.write_all(&byte).is_ok() {}
    });
    let mut byte = [0];
    for _ in 0..count {
        let there = ping_write.write_all(&byte);
        there.and_then(|()| pong_read.read_exact(&mut byte)).map_err(|e| format!("pipe: {e}"))?;
    }
    drop(ping_write);
    other.join().map_err(|_| "a thread panicked".to_owned())?;
    Ok(Done::Ok)
}
