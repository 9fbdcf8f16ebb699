//! What biolatency says, taken apart.

use crate::disk::Direct;
use crate::{Ended, Histogram, Record, Tool, total};

/// On one disk, for a program to read.
#[must_use]
#[track_caller]
pub fn biolatency(disk: &str, args: &str) -> Tool {
    Tool::new("biolatency").args(["--json", "-d", disk]).words(args)
}

#[must_use]
#[track_caller]
pub fn direct(disk: &str, most: usize) -> Direct {
    Direct::open(format!("/dev/{disk}"), most)
}

/// Those whose key has this.
#[must_use]
pub fn of<'a>(hists: &'a [Histogram], key: &str, value: &str) -> Vec<&'a Histogram> {
    hists.iter().filter(|hist| hist.key.str(key) == value).collect()
}

/// How many there are in those.
#[must_use]
pub fn count(hists: &[Histogram], key: &str, value: &str) -> u64 {
    total(of(hists, key, value)).0
}

/// Of a span, in microseconds.
#[must_use]
#[track_caller]
pub fn mean(ended: &Ended, span: &str) -> f64 {
    let (count, sum) = total(of(&ended.histograms(), "span", span));
    sum / count as f64
}

/// The records of histograms, with what they have beside the times.
pub fn hist_records(ended: &Ended) -> impl Iterator<Item = &Record> {
    ended.records().iter().filter(|record| record.str("type") == "histogram")
}

/// How many of this there were in all histograms: "requeued", "unissued".
#[must_use]
#[track_caller]
pub fn figure(ended: &Ended, name: &str) -> u64 {
    hist_records(ended).map(|record| record.get(name).as_u64().unwrap()).sum()
}

/// Failed I/O by errno, in the order of names.
#[must_use]
#[track_caller]
pub fn errors(ended: &Ended) -> Vec<(String, u64)> {
    let mut found: Vec<(String, u64)> = Vec::new();
    for record in hist_records(ended) {
        for (name, count) in record.get("errors").as_object().unwrap() {
            found.push((name.clone(), count.as_u64().unwrap()));
        }
    }
    found.sort();
    found
}

/// None is shorter than this, in milliseconds, and half of them are no longer than that: a timer of an emulated
/// machine is late now and then, never early.
#[track_caller]
pub fn assert_within(ended: &Ended, span: &str, from: f64, to: f64) {
    for record in hist_records(ended).filter(|record| record.get("key")["span"] == span) {
        let (min, half) = (record.num("min") / 1000.0, record.num("p50") / 1000.0);
        assert!(min >= from && half <= to, "{min} ms at least, {half} in the middle\n{}", ended.story());
    }
}
