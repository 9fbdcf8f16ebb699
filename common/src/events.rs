//! Events from the ring buffer, in the order of their time.
//!
//! Every event begins with its time (u64, CLOCK_MONOTONIC). CPUs reserve room a little after they read the
//! clock, so records may overtake each other by the length of a program; what is younger than `HOLD` waits
//! for the next look. Programs wake us only when the ring fills up (`bpf/lib/ring.bpf.h`).

use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::Result;
use libbpf_rs::MapCore;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::child::Child;
use crate::clock;
use crate::maps::u64_at;
use crate::ring::Ring;
use crate::tick::{Ticker, Wake};

/// An event is shown at most this and `HOLD` after it happened.
const LOOK: Duration = Duration::from_millis(35);
const HOLD_NS: u64 = 5_000_000;
/// Events are taken out of the ring after each so many that were shown, too: copying them is faster than
/// the programs are, showing them is not.
const BETWEEN: usize = 256;
/// Bytes that wait in our memory. What is more stays in the ring, where it is lost once that is full.
const BACKLOG: usize = 32 << 20;
/// Events taken at once.
const AT_ONCE: usize = 1024;

/// For a tool whose ring has the size of `bpf/lib/ring.bpf.h`: programs wake us each time a quarter has come.
pub const WAKE_BYTES: u64 = 512 << 10;

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    index: Vec<(u64, usize, usize)>,
}

impl Batch {
    /// An event, in two pieces.
    fn push(&mut self, event: &[u8], rest: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(event);
        self.bytes.extend_from_slice(rest);
        let at = u64_at(&self.bytes, start).unwrap_or(0);
        self.index.push((at, start, event.len() + rest.len()));
    }

    fn event(&self, start: usize, len: usize) -> &[u8] {
        self.bytes.get(start..start + len).unwrap_or_default()
    }

    /// Takes the events up to `until`, in order; keeps the rest.
    fn take(&mut self, until: u64) -> Batch {
        self.index.sort_by_key(|(at, ..)| *at);
        let ripe = self.index.partition_point(|(at, ..)| *at <= until);
        let mut rest = Batch::default();
        for (_, start, len) in self.index.split_off(ripe) {
            rest.push(self.event(start, len), &[]);
        }
        std::mem::replace(self, rest)
    }
}

/// The reading end of a ring buffer.
pub struct Events {
    ring: Ring,
    batch: Batch,
    /// Readable once for each time that a program wakes us, and not all the time that there is something:
    /// the loop would run for each event.
    woken: Epoll,
}

impl Events {
    /// # Errors
    /// The map is no ring buffer.
    pub fn new(map: &dyn MapCore) -> Result<Events> {
        let woken = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        woken.add(map.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))?;
        Ok(Events { ring: Ring::new(map)?, batch: Batch::default(), woken })
    }

    /// Waits for events or the end of a part. With the command the run ends.
    ///
    /// # Errors
    /// As [`Ticker::wait`].
    pub fn wait(&mut self, tick: &mut Ticker, command: Option<&Child>) -> Result<Wake> {
        let wake = tick.wait_also(Some(LOOK), command, Some(self.woken.0.as_fd()))?;
        self.woken.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO)?;
        Ok(wake)
    }

    /// Hands out what has come. `all`: also what is so young that something older may still come; only
    /// when no program sends any more.
    ///
    /// # Errors
    /// `each` fails.
    pub fn drain(&mut self, all: bool, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let until = if all { u64::MAX } else { clock::monotonic().saturating_sub(HOLD_NS) };
        loop {
            let mut taken = self.take_out();
            let ripe = self.batch.take(until);
            for (shown, (_, start, len)) in ripe.index.iter().enumerate() {
                if shown % BETWEEN == BETWEEN - 1 {
                    taken += self.take_out();
                }
                each(ripe.event(*start, *len))?;
            }
            if !all || taken == 0 && ripe.index.is_empty() {
                return Ok(());
            }
        }
    }

    /// From the ring into our memory.
    fn take_out(&mut self) -> usize {
        let mut sum = 0;
        while self.batch.bytes.len() < BACKLOG {
            match self.ring.take(AT_ONCE, |event, rest| self.batch.push(event, rest)) {
                0 => break,
                taken => sum += taken,
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64, text: &[u8]) -> Vec<u8> {
        [&at.to_ne_bytes(), text].concat()
    }

    #[test]
    fn events_come_in_order_and_young_ones_wait() {
        let mut batch = Batch::default();
        for (at, text) in [(30, b"c".as_slice()), (10, b"a"), (20, b"bb")] {
            let event = event(at, text);
            let (front, back) = event.split_at(event.len() / 2 + 4);
            batch.push(front, back);
        }
        let ripe = batch.take(20);
        let texts: Vec<&[u8]> =
            ripe.index.iter().map(|(_, start, len)| &ripe.event(*start, *len)[8..]).collect();
        assert_eq!(texts, [b"a".as_slice(), b"bb"]);
        batch.push(&event(25, b"x"), &[]);
        let rest = batch.take(u64::MAX);
        assert_eq!(rest.index.iter().map(|(at, ..)| *at).collect::<Vec<_>>(), [25, 30]);
    }
}
