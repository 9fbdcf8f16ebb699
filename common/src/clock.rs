//! Event times: from the clock that BPF programs read to the one on the wall.

use std::cell::OnceCell;

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

/// Nanoseconds.
const JITTER: i128 = 1_000_000;

/// Turns monotonic times into wall-clock ones.
pub struct Clock {
    offset: i128,
    /// Read when it is needed first: that looks through the whole time zone database.
    zone: OnceCell<TimeZone>,
    last: Option<(i64, String)>,
    last_utc: Option<(i64, String)>,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

impl Clock {
    #[must_use]
    pub fn new() -> Clock {
        let mut clock = Clock { offset: 0, zone: OnceCell::new(), last: None, last_utc: None };
        clock.adjust();
        clock
    }

    /// Reads both clocks anew: the wall clock may have been set, or the machine suspended. What is off by
    /// less than `JITTER` is only the time between the readings, and would let times go backwards.
    pub fn adjust(&mut self) {
        let before = i128::from(monotonic());
        let wall = i128::from(nanos(ClockId::CLOCK_REALTIME));
        let after = i128::from(monotonic());
        if self.offset > wall - before + JITTER || self.offset < wall - after - JITTER {
            self.offset = wall - (before + after) / 2;
        }
    }

    fn timestamp(&self, monotonic: u64) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(monotonic) + self.offset).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// `2026-01-31T12:00:01.000000Z`.
    #[must_use]
    pub fn utc(&mut self, monotonic: u64) -> String {
        let stamp = self.timestamp(monotonic);
        let (second, micros) = (stamp.as_second(), stamp.subsec_nanosecond() / 1000);
        // Before 1970 the parts are negative: never but in a machine whose clock is wrong.
        if second < 0 || micros < 0 {
            return format!("{stamp:.6}");
        }
        match &self.last_utc {
            Some((last, text)) if *last == second => format!("{text}.{micros:06}Z"),
            _ => {
                let text = stamp.strftime("%Y-%m-%dT%H:%M:%S").to_string();
                let whole = format!("{text}.{micros:06}Z");
                self.last_utc = Some((second, text));
                whole
            }
        }
    }

    /// `13:00:01`, local time, as the peers print it.
    pub fn local(&mut self, monotonic: u64) -> String {
        let stamp = self.timestamp(monotonic);
        match &self.last {
            Some((second, text)) if *second == stamp.as_second() => text.clone(),
            _ => {
                let zone = self.zone.get_or_init(TimeZone::system).clone();
                let text = stamp.to_zoned(zone).strftime("%H:%M:%S").to_string();
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
        let mut clock = Clock {
            offset: 1_769_860_800_000_000_000,
            zone: TimeZone::UTC.into(),
            last: None,
            last_utc: None,
        };
        assert_eq!(clock.utc(1_000_001_999), "2026-01-31T12:00:01.000001Z");
        assert_eq!(clock.utc(1_999_999_999), "2026-01-31T12:00:01.999999Z");
        assert_eq!(clock.utc(2_000_000_000), "2026-01-31T12:00:02.000000Z");
        assert_eq!(clock.local(1_000_001_999), "12:00:01");
        assert_eq!(clock.local(2_000_000_000), "12:00:02");
    }
}
