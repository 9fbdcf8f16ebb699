//! What a run saw and what it missed.

use anyhow::Result;
use libbpf_rs::{MapCore as _, MapFlags, Object};
use serde_json::{Map, Value};

use crate::maps;

/// A counter of `losses`, in the order of `enum loss` in `bpf/lib/maps.bpf.h`.
struct Counter {
    key: &'static str,
    /// In the line at the end: "3 of 120345 waits lost (map full 3)".
    words: &'static str,
    weight: Weight,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// An event is missing from the output.
    Lost,
    /// The event is there, something of it is not.
    Partial,
    /// It began before the run: nothing is missing.
    Outside,
}

const COUNTERS: &[Counter] = &[
    Counter { key: "ring", words: "ring buffer full", weight: Weight::Lost },
    Counter { key: "map_full", words: "map full", weight: Weight::Lost },
    Counter { key: "unmatched", words: "unmatched", weight: Weight::Lost },
    Counter { key: "unreadable", words: "with an unreadable name", weight: Weight::Partial },
    Counter { key: "truncated", words: "with a truncated path", weight: Weight::Partial },
    Counter {
        key: "recovered",
        words: "with the kernel's account of their length (end not seen)",
        weight: Weight::Partial,
    },
    Counter { key: "began_before", words: "began before the run", weight: Weight::Outside },
];

/// Programs that the kernel did not run because one was running there already.
const SKIPPED: Counter =
    Counter { key: "skipped", words: "program skipped by the kernel", weight: Weight::Lost };

/// The counters of a run at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: Vec<u64>,
    skipped: u64,
}

impl Coverage {
    /// # Errors
    /// The map `losses` is missing or cannot be read.
    pub fn read(object: &Object) -> Result<Coverage> {
        let losses = maps::find(object, "losses")?;
        let mut counts = Vec::new();
        for index in 0..COUNTERS.len() as u32 {
            let per_cpu = losses.lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
            counts.push(per_cpu.iter().filter_map(|bytes| maps::u64_at(bytes, 0)).sum());
        }
        Ok(Coverage { counts, skipped: skipped(object) })
    }

    /// What the tool itself found to be missing, beside its programs. `key`: as in the end record.
    pub fn add(&mut self, key: &str, number: u64) {
        let counter = COUNTERS.iter().position(|counter| counter.key == key);
        if let Some(count) = counter.and_then(|index| self.counts.get_mut(index)) {
            *count += number;
        }
    }

    fn with(&self, weight: Weight) -> impl Iterator<Item = (&'static Counter, u64)> {
        let all = COUNTERS.iter().zip(self.counts.iter().copied()).chain([(&SKIPPED, self.skipped)]);
        all.filter(move |(counter, _)| counter.weight == weight)
    }

    /// Events that are missing from the output.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.with(Weight::Lost).map(|(_, n)| n).sum()
    }

    /// For the end record.
    #[must_use]
    pub fn json(&self) -> Value {
        let shown = [Weight::Lost, Weight::Partial].into_iter().flat_map(|weight| self.with(weight));
        Value::Object(shown.map(|(counter, n)| (counter.key.to_owned(), n.into())).collect::<Map<_, _>>())
    }

    /// One line for stderr; none if nothing was missed. `what`: "waits", "opens".
    #[must_use]
    pub fn line(&self, events: u64, what: &str) -> Option<String> {
        let list = |weight| {
            let counted = self.with(weight).filter(|(_, n)| *n > 0);
            counted.map(|(counter, n)| format!("{n} {}", counter.words)).collect::<Vec<_>>().join(", ")
        };
        let lost = self.lost();
        let partial = list(Weight::Partial);
        match (lost, partial.is_empty()) {
            (0, true) => None,
            (0, false) => Some(format!("of {events} {what}: {partial}")),
            (_, true) => Some(format!("{lost} of {} {what} lost ({})", events + lost, list(Weight::Lost))),
            (_, false) => {
                Some(format!("{lost} of {} {what} lost ({}); {partial}", events + lost, list(Weight::Lost)))
            }
        }
    }

    /// For `-v`: every counter, zero or not.
    #[must_use]
    pub fn full(&self) -> String {
        let all =
            [Weight::Lost, Weight::Partial, Weight::Outside].into_iter().flat_map(|weight| self.with(weight));
        all.map(|(counter, n)| format!("{}={n}", counter.key)).collect::<Vec<_>>().join(" ")
    }
}

/// Since 5.12, 9ed9e9ba2337 ("bpf: Count the number of times recursion was prevented"); 0 before.
fn skipped(object: &Object) -> u64 {
    use std::os::fd::AsFd as _;
    let loaded = object.progs().filter(libbpf_rs::Program::autoload);
    loaded.filter_map(|prog| program_info(prog.as_fd())).sum()
}

fn program_info(fd: std::os::fd::BorrowedFd<'_>) -> Option<u64> {
    use std::os::fd::AsRawFd as _;
    let mut info = libbpf_rs::libbpf_sys::bpf_prog_info::default();
    let mut size = size_of_val(&info) as u32;
    // SAFETY: `info` is zeroed plain data of `size` bytes, which the kernel fills in part.
    let status = unsafe {
        libbpf_rs::libbpf_sys::bpf_prog_get_info_by_fd(fd.as_raw_fd(), &raw mut info, &raw mut size)
    };
    (status == 0).then_some(info.recursion_misses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_run_says_nothing() {
        let coverage = Coverage { counts: vec![0, 0, 0, 0, 0, 0, 5], skipped: 0 };
        assert_eq!(coverage.line(100, "waits"), None);
        assert_eq!(coverage.lost(), 0);
        assert!(coverage.full().ends_with("began_before=5"));
    }

    #[test]
    fn a_tool_adds_what_it_finds_missing() {
        let mut coverage = Coverage { counts: vec![0, 0, 1, 0, 0, 0, 0], skipped: 0 };
        coverage.add("unmatched", 2);
        coverage.add("recovered", 1);
        assert_eq!((coverage.lost(), coverage.counts[5]), (3, 1));
    }

    #[test]
    fn each_reason_is_named_with_its_count() {
        let coverage = Coverage { counts: vec![2, 0, 1, 3, 0, 0, 0], skipped: 0 };
        let line = coverage.line(97, "opens").unwrap();
        assert_eq!(line, "3 of 100 opens lost (2 ring buffer full, 1 unmatched); 3 with an unreadable name");
        assert_eq!(coverage.json()["map_full"], 0);
        assert_eq!(coverage.json()["unreadable"], 3);
    }
}
