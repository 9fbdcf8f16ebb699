//! Event times: from the clock that BPF programs read to the one on the wall.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC` in nanoseconds: what `bpf_ktime_get_ns()` returns.
#[must_use]
pub fn monotonic() -> u64 {
    nanos(ClockId::CLOCK_MONOTONIC)
}

fn nanos(clock: ClockId) -> u64 {
    // Both clocks exist on every Linux, and both are positive.
    clock_gettime(clock).map_or(0, |t| (t.tv_sec() as u64).saturating_mul(1_000_000_000) + t.tv_nsec() as u64)
}

/// Turns monotonic times into wall-clock ones.
pub struct Clock {
    offset: i128,
    zone: TimeZone,
    last: Option<(i64, String)>,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

impl Clock {
    #[must_use]
    pub fn new() -> Clock {
        let mut clock = Clock { offset: 0, zone: TimeZone::system(), last: None };
        clock.adjust();
        clock
    }

    /// Reads both clocks anew: the wall clock may have been set, or the machine suspended.
    pub fn adjust(&mut self) {
        self.offset = i128::from(nanos(ClockId::CLOCK_REALTIME)) - i128::from(monotonic());
    }

    fn timestamp(&self, monotonic: u64) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(monotonic) + self.offset).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// `2026-01-31T12:00:01.000000Z`.
    #[must_use]
    pub fn utc(&self, monotonic: u64) -> String {
        format!("{:.6}", self.timestamp(monotonic))
    }

    /// `13:00:01`, local time, as the peers print it.
    pub fn local(&mut self, monotonic: u64) -> String {
        let stamp = self.timestamp(monotonic);
        match &self.last {
            Some((second, text)) if *second == stamp.as_second() => text.clone(),
            _ => {
                let text = stamp.to_zoned(self.zone.clone()).strftime("%H:%M:%S").to_string();
                self.last = Some((stamp.as_second(), text.clone()));
                text
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_in_utc_with_microseconds_and_in_local_time() {
        let mut clock = Clock { offset: 1_769_860_800_000_000_000, zone: TimeZone::UTC, last: None };
        assert_eq!(clock.utc(1_000_001_999), "2026-01-31T12:00:01.000001Z");
        assert_eq!(clock.local(1_000_001_999), "12:00:01");
        assert_eq!(clock.local(2_000_000_000), "12:00:02");
    }
}
