// SPDX-License-Identifier: MIT OR Apache-2.0
//! Naps in Rust: a trait's method for a generic type, and a function that is inlined there. Protocol as in waits.c.

use std::io::stdin;
use std::time::{Duration, Instant};

mod space {
    use super::*;

    pub struct Type<T>(pub T);

    pub trait Nap {
        fn nap(&self, count: u32) -> Duration;
    }

    #[inline(always)]
    fn inlined() {
        std::thread::sleep(Duration::from_millis(5));
    }

    impl<T> Nap for Type<T> {
        #[inline(never)]
        fn nap(&self, count: u32) -> Duration {
            let start = Instant::now();
            for _ in 0..count {
                inlined();
            }
            start.elapsed()
        }
    }
}

fn main() {
    println!("{}", std::process::id());
    let mut line = String::new();
    if stdin().read_line(&mut line).is_ok_and(|length| length > 0) {
        println!("nap {}", space::Nap::nap(&space::Type(1_u64), 29).as_micros());
        println!("done");
        std::thread::park();
    }
}
