//! `--summary`: how many opens there were for each path, name or error.

use std::collections::HashMap;

use anyhow::Result;
use common::out::Out;
use common::table::{Cell, Column};

use crate::args::By;
use crate::columns::error_name;
use crate::event::Open;

pub struct Summary {
    by: By,
    counts: HashMap<Vec<u8>, Count>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    all: u64,
    failed: u64,
}

pub struct Line {
    count: Count,
    key: Vec<u8>,
}

impl Summary {
    pub fn new(by: By) -> Summary {
        Summary { by, counts: HashMap::new() }
    }

    pub fn add(&mut self, open: &Open) {
        let number;
        let key = match self.by {
            By::Path => open.path(),
            By::Comm => &open.comm,
            By::Err => {
                number = open.errno().to_ne_bytes();
                &number[..]
            }
        };
        // No copy of a key that is there.
        if !self.counts.contains_key(key) {
            self.counts.insert(key.to_vec(), Count::default());
        }
        if let Some(count) = self.counts.get_mut(key) {
            count.all += 1;
            count.failed += u64::from(open.errno() != 0);
        }
    }

    /// The most first; what is equal in the order of its bytes.
    fn take(&mut self) -> Vec<Line> {
        let mut lines: Vec<Line> = self.counts.drain().map(|(key, count)| Line { count, key }).collect();
        lines.sort_by(|a, b| b.count.all.cmp(&a.count.all).then_with(|| a.key.cmp(&b.key)));
        lines
    }

    /// Prints the part and begins the next.
    pub fn report(&mut self, out: &mut Out, times: bool) -> Result<()> {
        let columns: &[&Column<Line>] = match self.by {
            By::Path => &[&COUNT, &FAILED, &PATH],
            By::Comm => &[&COUNT, &FAILED, &COMM],
            By::Err => &[&COUNT, &ERR, &ERR_NAME],
        };
        let at = out.report(times)?;
        out.header(columns)?;
        for line in self.take() {
            out.row(at, columns, &line)?;
        }
        Ok(())
    }
}

static COUNT: Column<Line> =
    Column { key: "count", head: "COUNT", width: 8, get: |l| Cell::Uint(l.count.all) };
static FAILED: Column<Line> =
    Column { key: "failed", head: "FAILED", width: 8, get: |l| Cell::Uint(l.count.failed) };
static PATH: Column<Line> = Column { key: "path", head: "PATH", width: 0, get: |l| path(&l.key) };
static COMM: Column<Line> = Column { key: "comm", head: "COMM", width: 0, get: |l| Cell::bytes(&l.key) };
static ERR: Column<Line> =
    Column { key: "err", head: "ERR", width: 3, get: |l| Cell::Int(errno(&l.key).into()) };
static ERR_NAME: Column<Line> =
    Column { key: "errname", head: "NAME", width: 0, get: |l| Cell::Word(error_name(errno(&l.key))) };

fn errno(key: &[u8]) -> i32 {
    key.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes))
}

fn path(key: &[u8]) -> Cell<'_> {
    if key.is_empty() { Cell::word("\"\"") } else { Cell::bytes(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_come_first_and_a_part_begins_empty() {
        let mut summary = Summary::new(By::Comm);
        for (comm, times) in [("a", 2), ("c", 3), ("b", 2)] {
            let mut open = Open::default();
            open.comm = comm.into();
            (0..times).for_each(|_| summary.add(&open));
        }
        let keys: Vec<_> = summary.take().into_iter().map(|l| (l.key, l.count.all)).collect();
        assert_eq!(keys, [(b"c".to_vec(), 3), (b"a".to_vec(), 2), (b"b".to_vec(), 2)]);
        assert!(summary.take().is_empty());
    }
}
