//! Work for the scheduler.

use std::fs::File;
use std::io::{Read as _, Write as _, pipe};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::stage::Stage;
use crate::{Done, Outcome};

/// The threads are there before the gate opens and stay until the end.
pub fn spin(seconds: f64, threads: u64, stage: &Stage) -> Outcome {
    let length = Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())?;
    let meet = Arc::new(Barrier::new(threads as usize));
    let others: Vec<_> = (1..threads)
        .map(|_| {
            let meet = Arc::clone(&meet);
            thread::spawn(move || {
                meet.wait();
                burn(length);
                meet.wait();
                meet.wait();
            })
        })
        .collect();
    stage.ready()?;
    meet.wait();
    burn(length);
    meet.wait();
    stage.done()?;
    meet.wait();
    join(others)
}

fn burn(length: Duration) {
    let start = Instant::now();
    while start.elapsed() < length {
        std::hint::spin_loop();
    }
}

pub fn nap(count: u64, micros: u64, stage: &Stage) -> Outcome {
    stage.ready()?;
    for _ in 0..count {
        thread::sleep(Duration::from_micros(micros));
    }
    stage.done()?;
    Ok(Done::Ok)
}

pub fn threads(count: u64, stage: &Stage) -> Outcome {
    const AT_ONCE: u64 = 64;
    stage.ready()?;
    let mut left = count;
    while left > 0 {
        let now = left.min(AT_ONCE);
        let batch: Vec<_> =
            (0..now).map(|_| thread::spawn(|| thread::sleep(Duration::from_millis(1)))).collect();
        join(batch)?;
        left -= now;
    }
    stage.done()?;
    Ok(Done::Ok)
}

pub fn pingpong(count: u64, stage: &Stage) -> Outcome {
    let ends = || pipe().map_err(|e| format!("pipe: {e}"));
    let (mut ping_read, mut ping_write) = ends()?;
    let (mut pong_read, mut pong_write) = ends()?;
    let other = thread::spawn(move || {
        let mut byte = [0];
        while ping_read.read_exact(&mut byte).is_ok() && pong_write.write_all(&byte).is_ok() {}
    });
    stage.ready()?;
    let mut byte = [0];
    for _ in 0..count {
        let there = ping_write.write_all(&byte);
        there.and_then(|()| pong_read.read_exact(&mut byte)).map_err(|e| format!("pipe: {e}"))?;
    }
    stage.done()?;
    drop(ping_write);
    join(vec![other])
}

pub fn noise(stage: &Stage) -> Outcome {
    stage.ready()?;
    loop {
        drop(File::open("/dev/null"));
        drop(File::open("/nowhere/at/all"));
        thread::sleep(Duration::from_millis(1));
    }
}

fn join(threads: Vec<thread::JoinHandle<()>>) -> Outcome {
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked".to_owned())?;
    }
    Ok(Done::Ok)
}
