//! The only writer to stdout: rows, histograms and the end record, as text or as JSON lines.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Map, Value};

use crate::cli::Shared;
use crate::clock::{self, Clock};
use crate::coverage::Coverage;
use crate::exit::Kind;
use crate::hist::{Hist, Unit};
use crate::hook::Ladder;
use crate::table::{self, Cell, Column, rounded};

/// What a section of histograms is kept for: `pid = 42 bash`, `{"pid":42,"comm":"bash"}`.
pub type Key<'a> = [(&'static str, Cell<'a>)];

/// How a run ended.
pub struct End<'a> {
    pub seconds: f64,
    pub events: u64,
    /// The events' name in the line about losses: "waits".
    pub what: &'static str,
    pub coverage: &'a Coverage,
    pub ladder: &'a Ladder,
    /// What else the tool has to say in the end record.
    pub more: Vec<(&'static str, Value)>,
}

pub struct Out {
    tool: &'static str,
    json: bool,
    verbose: bool,
    strict: bool,
    sink: Box<dyn Write>,
    report_at: u64,
    pub clock: Clock,
}

impl Out {
    #[must_use]
    pub fn new(tool: &'static str, shared: &Shared) -> Out {
        let sink = BufWriter::with_capacity(1 << 16, io::stdout());
        Out::to(Box::new(sink), tool, shared)
    }

    fn to(sink: Box<dyn Write>, tool: &'static str, shared: &Shared) -> Out {
        let Shared { json, verbose, strict, .. } = *shared;
        Out { tool, json, verbose, strict, sink, report_at: 0, clock: Clock::new() }
    }

    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line of text mode only: the first one, or a blank one between two reports.
    ///
    /// # Errors
    /// As every method here: stdout cannot be written.
    pub fn text(&mut self, line: &str) -> Result<()> {
        if !self.json {
            writeln!(self.sink, "{line}")?;
        }
        Ok(())
    }

    /// Several lines of text mode only.
    pub fn print(&mut self, lines: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        if self.json { Ok(()) } else { lines(&mut self.sink) }
    }

    /// A record of JSON mode only, of a tool's own making; its type, the tool and the time stand before it.
    pub fn object(&mut self, kind: &str, fields: Map<String, Value>) -> Result<()> {
        if !self.json {
            return Ok(());
        }
        let mut object = self.record(kind, self.report_at);
        object.extend(fields);
        self.line(&object)
    }

    /// Begins a report: a blank line, and with `-T` its time, `HH:MM:SS`, eight wide, as the peers. All of
    /// its records have this one time, which is returned.
    pub fn report(&mut self, timestamp: bool) -> Result<u64> {
        self.clock.adjust();
        self.report_at = clock::monotonic();
        self.text("")?;
        if timestamp {
            let time = self.clock.local(self.report_at);
            self.text(&format!("{time:<8}"))?;
        }
        Ok(self.report_at)
    }

    pub fn header<T>(&mut self, columns: &[&Column<T>]) -> Result<()> {
        if !self.json {
            table::header(columns, &mut self.sink)?;
        }
        Ok(())
    }

    /// One event or one line of a table. `at`: when, by the monotonic clock.
    pub fn row<T>(&mut self, at: u64, columns: &[&Column<T>], record: &T) -> Result<()> {
        if !self.json {
            return Ok(table::row(columns, record, &mut self.sink)?);
        }
        let time = self.clock.utc(at);
        write!(self.sink, "{{\"type\":\"row\",\"tool\":\"{}\",\"time\":\"{time}\"", self.tool)?;
        for column in columns.iter().filter(|column| !column.key.is_empty()) {
            let cell = (column.get)(record);
            write!(self.sink, ",\"{}\":", column.key)?;
            cell.write_json(&mut self.sink)?;
            if let Some(raw) = cell.raw() {
                write!(self.sink, ",\"{}_hex\":\"{}\"", column.key, hex(raw))?;
            }
        }
        Ok(self.sink.write_all(b"}\n")?)
    }

    /// A histogram with its key. In text an empty one is nothing at all, as with the peers.
    pub fn hist(&mut self, key: &Key<'_>, unit: Unit, seconds: f64, hist: &Hist) -> Result<()> {
        self.hist_and(key, unit, seconds, hist, Vec::new())
    }

    /// The same, and what else belongs to it in JSON.
    pub fn hist_and(
        &mut self,
        key: &Key<'_>,
        unit: Unit,
        seconds: f64,
        hist: &Hist,
        more: Vec<(&str, Value)>,
    ) -> Result<()> {
        if self.json {
            let mut object = self.record("histogram", self.report_at);
            object.insert("seconds".into(), rounded(seconds));
            object.insert("unit".into(), unit.name().into());
            let mut keys = Map::new();
            for (name, cell) in key {
                insert(&mut keys, name, cell);
            }
            object.insert("key".into(), keys.into());
            figures(&mut object, unit, hist);
            object.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
            return self.line(&object);
        }
        if hist.count() == 0 {
            return Ok(());
        }
        if let [(name, value), rest @ ..] = key {
            write!(self.sink, "\n{name} = {}", value.text())?;
            for (_, cell) in rest {
                write!(self.sink, " {}", cell.text())?;
            }
            writeln!(self.sink)?;
        }
        Ok(block(hist, unit, &mut self.sink)?)
    }

    pub fn flush(&mut self) -> Result<()> {
        Ok(self.sink.flush()?)
    }

    /// The end record, the line about what was missed, and the exit code.
    pub fn finish(mut self, end: &End<'_>) -> Result<ExitCode> {
        if self.json {
            let mut object = Map::new();
            object.insert("type".into(), "end".into());
            object.insert("tool".into(), self.tool.into());
            object.insert("seconds".into(), rounded(end.seconds));
            object.insert("events".into(), end.events.into());
            object.insert("lost".into(), end.coverage.json());
            let hooks = end.ladder.used().into_iter().map(|(what, way)| (what.to_owned(), Value::from(way)));
            object.insert("hooks".into(), Value::Object(hooks.collect()));
            object.extend(end.more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
            self.line(&object)?;
        }
        self.flush()?;
        if let Some(line) = end.coverage.line(end.events, end.what) {
            eprintln!("{}: {line}", self.tool);
        }
        if self.verbose {
            let counters = end.coverage.full();
            eprintln!("{}: {} {} in {:.3} s; {counters}", self.tool, end.events, end.what, end.seconds);
        }
        let lost = self.strict && end.coverage.lost() > 0;
        Ok(if lost { ExitCode::from(Kind::Lost as u8) } else { ExitCode::SUCCESS })
    }

    fn record(&mut self, kind: &str, at: u64) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("type".into(), kind.into());
        object.insert("tool".into(), self.tool.into());
        object.insert("time".into(), self.clock.utc(at).into());
        object
    }

    fn line(&mut self, object: &Map<String, Value>) -> Result<()> {
        serde_json::to_writer(&mut self.sink, object).map_err(io::Error::from)?;
        Ok(self.sink.write_all(b"\n")?)
    }
}

/// Bytes that are no UTF-8 stand beside the text, in hexadecimal, under the key and `_hex`.
fn insert(object: &mut Map<String, Value>, key: &str, cell: &Cell<'_>) {
    object.insert(key.to_owned(), cell.json());
    if let Some(raw) = cell.raw() {
        object.insert(format!("{key}_hex"), hex(raw).into());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

fn figures(object: &mut Map<String, Value>, unit: Unit, hist: &Hist) {
    let some = hist.count() > 0;
    let figure = |nanos: f64| if some { rounded(unit.of_nanos(nanos)) } else { Value::Null };
    object.insert("count".into(), hist.count().into());
    object.insert("min".into(), figure(hist.min() as f64));
    object.insert("max".into(), figure(hist.max() as f64));
    object.insert("mean".into(), figure(hist.mean()));
    object.insert("sum".into(), rounded(unit.of_nanos(hist.sum() as f64)));
    let values = hist.quantiles(unit, QUANTILES);
    for (key, value) in ["p50", "p90", "p99", "p99_9"].into_iter().zip(values) {
        object.insert(key.into(), figure(value));
    }
    let rows = hist.rows(unit).into_iter().filter(|row| row.count > 0);
    let buckets = rows.map(|row| serde_json::json!({"lo": row.lo, "hi": row.hi, "count": row.count}));
    object.insert("buckets".into(), buckets.collect());
}

/// Cells of the bar in the classic block.
const BAR: u128 = 40;

/// The peers' log2 block, byte for byte, and our line of figures under it.
fn block(hist: &Hist, unit: Unit, out: &mut dyn Write) -> io::Result<()> {
    let rows = hist.rows(unit);
    // Beyond 2^32 the peers change to a wide form.
    let (number, bar) = if rows.len() > 33 { (20, BAR / 2) } else { (10, BAR) };
    let (indent, name) = if rows.len() > 33 { (15, 29) } else { (5, 19) };
    writeln!(out, "{:indent$}{:<name$} : count    distribution", "", unit.name())?;
    let most = rows.iter().map(|row| row.count).max().unwrap_or(1).max(1);
    for row in &rows {
        let stars = (bar * u128::from(row.count) / u128::from(most)) as usize;
        let stars = "*".repeat(stars);
        writeln!(
            out,
            "{:>number$} -> {:<number$} : {:<8} |{stars:<width$}|",
            row.lo,
            row.hi,
            row.count,
            width = bar as usize
        )?;
    }
    writeln!(out, "# {}", summary(hist, unit))
}

/// The line of figures: `count=… min=… … (usecs)`.
#[must_use]
pub fn summary(hist: &Hist, unit: Unit) -> String {
    let exact = |nanos: f64| exact(unit.of_nanos(nanos), unit);
    let percentile = |nanos: f64| {
        let rounded = three_digits(unit.of_nanos(nanos));
        let inside =
            |x: f64| (unit.of_nanos(hist.min() as f64)..=unit.of_nanos(hist.max() as f64)).contains(&x);
        // Three digits of a value at an end may lie beyond that.
        if rounded.parse().is_ok_and(inside) { rounded } else { exact(nanos) }
    };
    let [p50, p90, p99, p99_9] = hist.quantiles(unit, QUANTILES).map(percentile);
    format!(
        "count={} min={} mean={} p50={p50} p90={p90} p99={p99} p99.9={p99_9} max={} ({})",
        hist.count(),
        exact(hist.min() as f64),
        exact(hist.mean()),
        exact(hist.max() as f64),
        unit.name(),
    )
}

fn exact(value: f64, unit: Unit) -> String {
    let decimals = match unit {
        Unit::Nsecs | Unit::Bytes => 0,
        Unit::Usecs => 1,
        Unit::Msecs => 3,
    };
    format!("{value:.decimals$}")
}

/// A percentile is known to 3%: three digits.
fn three_digits(value: f64) -> String {
    let decimals = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    if value < 1000.0 {
        return format!("{value:.decimals$}");
    }
    let step = 10_f64.powi(value.log10() as i32 - 2);
    format!("{:.0}", (value / step).round() * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_the_peers_with_a_line_under_it() {
        let mut hist = Hist::default();
        // 5 us, in slots of 1/64 us: 320 is exponent 8, fourth of sixteen.
        hist.add_slot((8 - 4 + 1) * 16 + 4, 3, 15_000, 5_000, 5_000);
        hist.add_slot((6 - 4 + 1) * 16, 1, 1_000, 1_000, 1_000);
        let mut out = Vec::new();
        block(&hist, Unit::Usecs, &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
             usecs               : count    distribution
                 0 -> 1          : 1        |*************                           |
                 2 -> 3          : 0        |                                        |
                 4 -> 7          : 3        |****************************************|
        # count=4 min=1.0 mean=4.0 p50=5.00 p90=5.00 p99=5.00 p99.9=5.00 max=5.0 (usecs)
        ");
    }

    #[test]
    fn a_row_is_one_object_on_one_line() {
        #[derive(Clone)]
        struct Sink(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);
        impl Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.borrow_mut().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        const COLUMNS: &[Column<Vec<u8>>] = &[
            Column { key: "n", head: "N", width: 0, get: |b| Cell::Uint(b.len() as u64) },
            Column { key: "", head: "TEXT", width: 0, get: |_| Cell::word("in text only") },
            Column { key: "path", head: "", width: 0, get: |b| Cell::bytes(b) },
            Column { key: "usecs", head: "", width: 0, get: |_| Cell::Float(1.25, 1) },
            Column { key: "fd", head: "", width: 0, get: |_| Cell::Nothing },
        ];
        let sink = Sink(std::rc::Rc::default());
        let shared = Shared {
            json: true,
            verbose: false,
            strict: false,
            check: false,
            btf: None,
            probe: None,
            ready_fd: None,
            generate: None,
        };
        let mut out = Out::to(Box::new(sink.clone()), "tool", &shared);
        let columns: Vec<_> = COLUMNS.iter().collect();
        out.row(0, &columns, &b"a\n\xff\"".to_vec()).unwrap();
        let line = String::from_utf8(sink.0.take()).unwrap();
        let cells =
            "\"n\":4,\"path\":\"a\\n\u{fffd}\\\"\",\"path_hex\":\"610aff22\",\"usecs\":1.25,\"fd\":null}\n";
        assert!(line.ends_with(cells), "{line}");
        let object: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((object["type"].as_str(), object["tool"].as_str()), (Some("row"), Some("tool")));
    }

    #[test]
    fn a_percentile_shows_three_digits() {
        let shown: Vec<_> = [0.5, 9.126, 31.24, 118.4, 951.0, 1043.2, 12_345.0].map(three_digits).into();
        assert_eq!(shown, ["0.50", "9.13", "31.2", "118", "951", "1040", "12300"]);
    }
}
