//! The lines of `--json`, taken apart and checked for what holds of every one.

use serde_json::{Map, Value};

/// One line.
#[derive(Clone, Debug)]
pub struct Record(pub Map<String, Value>);

impl Record {
    #[track_caller]
    pub(crate) fn parse(line: &str, tool: &str) -> Record {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"));
        let Value::Object(map) = value else { panic!("not an object: {line}") };
        let record = Record(map);
        assert_eq!(record.str("tool"), tool, "{line}");
        record
    }

    #[must_use]
    #[track_caller]
    pub fn get(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or_else(|| panic!("no {name:?} in {}", self.line()))
    }

    #[must_use]
    #[track_caller]
    pub fn str(&self, name: &str) -> &str {
        self.get(name).as_str().unwrap_or_else(|| panic!("{name:?} is no text in {}", self.line()))
    }

    #[must_use]
    #[track_caller]
    pub fn int(&self, name: &str) -> i64 {
        self.get(name).as_i64().unwrap_or_else(|| panic!("{name:?} is no whole number in {}", self.line()))
    }

    #[must_use]
    #[track_caller]
    pub fn num(&self, name: &str) -> f64 {
        self.get(name).as_f64().unwrap_or_else(|| panic!("{name:?} is no number in {}", self.line()))
    }

    /// The keys in the order they were printed in.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// `time`, which has to be UTC with microseconds, as microseconds of its day.
    #[must_use]
    #[track_caller]
    pub fn micros_of_day(&self) -> u64 {
        let time = self.str("time");
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000000Z", "the time {time}");
        let field = |from: usize, to: usize| time[from..to].parse::<u64>().unwrap();
        ((field(11, 13) * 60 + field(14, 16)) * 60 + field(17, 19)) * 1_000_000 + field(20, 26)
    }

    /// The process that it is about: a row's, or that of a histogram's key.
    #[must_use]
    pub fn pid(&self) -> Option<u64> {
        let key = self.0.get("key").and_then(|key| key.get("pid"));
        self.0.get("pid").or(key).and_then(Value::as_u64)
    }

    #[must_use]
    pub fn line(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }
}

/// A `histogram` record.
#[derive(Clone, Debug)]
pub struct Histogram {
    pub key: Record,
    pub unit: String,
    pub time: String,
    pub seconds: f64,
    pub count: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    /// From, to (the whole of that unit), how many.
    pub buckets: Vec<(f64, f64, u64)>,
}

impl Histogram {
    #[track_caller]
    pub(crate) fn from(record: &Record) -> Histogram {
        let bucket = |value: &Value| {
            let bucket = Record(value.as_object().expect("a bucket is an object").clone());
            (bucket.num("lo"), bucket.num("hi"), count(&bucket, "count"))
        };
        let buckets = record.get("buckets").as_array().expect("buckets is a list");
        let hist = Histogram {
            key: Record(record.get("key").as_object().cloned().expect("key is an object")),
            unit: record.str("unit").to_owned(),
            time: record.str("time").to_owned(),
            seconds: record.num("seconds"),
            count: count(record, "count"),
            sum: record.num("sum"),
            // Of nothing there is neither: null.
            min: record.get("min").as_f64().unwrap_or(f64::NAN),
            max: record.get("max").as_f64().unwrap_or(f64::NAN),
            buckets: buckets.iter().map(bucket).collect(),
        };
        hist.check(record);
        hist
    }

    /// What holds of every histogram.
    #[track_caller]
    fn check(&self, record: &Record) {
        let line = record.line();
        let inside: u64 = self.buckets.iter().map(|(_, _, n)| n).sum();
        assert_eq!(inside, self.count, "the buckets' counts make the count: {line}");
        assert!(self.buckets.iter().all(|(lo, hi, _)| lo < hi), "{line}");
        assert!(self.buckets.windows(2).all(|two| two[0].1 < two[1].0), "buckets in order: {line}");
        let names = ["min", "p50", "p90", "p99", "p99_9", "max"];
        if self.count == 0 {
            assert!(names.iter().all(|name| record.get(name).is_null()) && self.sum == 0.0, "{line}");
            return;
        }
        let ranks = names.map(|name| record.num(name));
        assert!(ranks.windows(2).all(|two| two[0] <= two[1]), "percentiles rise: {line}");
        let mean = self.sum / self.count as f64;
        assert!((record.num("mean") - mean).abs() <= 0.001 + mean * 0.001, "mean is sum / count: {line}");
        assert!(self.min <= mean && mean <= self.max, "{line}");
        let (first, last) = (self.buckets[0], self.buckets[self.buckets.len() - 1]);
        assert!(
            first.0 <= self.min && self.max < last.1 + 1.0,
            "min and max lie in the outer buckets: {line}"
        );
    }

    #[must_use]
    pub fn why(&self) -> Option<&str> {
        self.key.0.get("why").and_then(Value::as_str)
    }
}

/// Count and sum of several histograms.
#[must_use]
pub fn total<'a>(hists: impl IntoIterator<Item = &'a Histogram>) -> (u64, f64) {
    hists.into_iter().fold((0, 0.0), |(count, sum), hist| (count + hist.count, sum + hist.sum))
}

/// The last record.
#[derive(Clone, Debug)]
pub struct End(pub Record);

impl End {
    #[must_use]
    #[track_caller]
    pub fn events(&self) -> u64 {
        count(&self.0, "events")
    }

    #[must_use]
    #[track_caller]
    pub fn lost(&self, why: &str) -> u64 {
        let lost = Record(self.0.get("lost").as_object().cloned().expect("lost is an object"));
        count(&lost, why)
    }

    /// Does the kernel show this hook? One that `--check` calls "not covered" is "none" here.
    #[must_use]
    #[track_caller]
    pub fn covers(&self, hook: &str) -> bool {
        self.0.get("hooks")[hook] != "none"
    }

    /// The way that was taken.
    #[must_use]
    #[track_caller]
    pub fn is_via(&self, hook: &str, way: &str) -> bool {
        assert!(self.0.get("hooks").get(hook).is_some(), "no {hook}: {}", self.0.line());
        self.0.get("hooks")[hook] == way
    }

    /// The events that are missing. (Those of the other kinds are there, but lack something.)
    #[must_use]
    #[track_caller]
    pub fn all_lost(&self) -> u64 {
        ["ring", "map_full", "unmatched", "skipped"].map(|why| self.lost(why)).iter().sum()
    }

    /// Every counter that is not 0.
    #[must_use]
    #[track_caller]
    pub fn losses(&self) -> Vec<(String, u64)> {
        let lost = self.0.get("lost").as_object().expect("lost is an object");
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("a loss is a count: {value}"));
        lost.iter().map(|(why, n)| (why.clone(), number(n))).filter(|(_, n)| *n > 0).collect()
    }
}

#[track_caller]
fn count(record: &Record, name: &str) -> u64 {
    record.get(name).as_u64().unwrap_or_else(|| panic!("{name:?} is no count in {}", record.line()))
}
