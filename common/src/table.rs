//! Columns of a row: heading, cell, JSON key and the text for the documents, said once.

use std::borrow::Cow;
use std::io::{self, Write};

use serde_json::Value;

use crate::text::escape;

/// The content of one cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'a> {
    Int(i64),
    Uint(u64),
    /// Text mode shows this many decimals.
    Float(f64, usize),
    /// Bytes from the kernel or a user: escaped in text, by JSON's rules in JSON.
    Bytes(Cow<'a, [u8]>),
    /// Our own words.
    Word(Cow<'a, str>),
    /// Text mode shows `-`, JSON null.
    Nothing,
}

impl<'a> Cell<'a> {
    #[must_use]
    pub fn bytes(bytes: &'a [u8]) -> Cell<'a> {
        Cell::Bytes(Cow::Borrowed(bytes))
    }

    #[must_use]
    pub fn word(word: &'a str) -> Cell<'a> {
        Cell::Word(Cow::Borrowed(word))
    }

    /// As a line of text shows it.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Cell::Int(n) => Cow::Owned(n.to_string()),
            Cell::Uint(n) => Cow::Owned(n.to_string()),
            Cell::Float(x, decimals) => Cow::Owned(format!("{x:.decimals$}")),
            Cell::Bytes(bytes) => escape(bytes),
            Cell::Word(word) => Cow::Borrowed(word),
            Cell::Nothing => Cow::Borrowed("-"),
        }
    }

    #[must_use]
    pub fn json(&self) -> Value {
        match self {
            Cell::Int(n) => (*n).into(),
            Cell::Uint(n) => (*n).into(),
            Cell::Float(x, _) => rounded(*x),
            Cell::Bytes(bytes) => String::from_utf8_lossy(bytes).into(),
            Cell::Word(word) => word.as_ref().into(),
            Cell::Nothing => Value::Null,
        }
    }

    /// As [`Cell::json`], straight to where it goes: rows come by the hundred thousand.
    ///
    /// # Errors
    /// The writer fails.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Cell::Int(n) => write!(out, "{n}"),
            Cell::Uint(n) => write!(out, "{n}"),
            Cell::Word(word) => Ok(serde_json::to_writer(out, word.as_ref())?),
            Cell::Bytes(bytes) => Ok(serde_json::to_writer(out, &String::from_utf8_lossy(bytes))?),
            Cell::Float(..) | Cell::Nothing => Ok(serde_json::to_writer(out, &self.json())?),
        }
    }

    /// For bytes that JSON cannot hold: what they really are.
    #[must_use]
    pub fn raw(&self) -> Option<&[u8]> {
        match self {
            Cell::Bytes(bytes) if std::str::from_utf8(bytes).is_err() => Some(bytes),
            _ => None,
        }
    }
}

/// Nanoseconds are the finest that is measured: more digits would be noise.
#[must_use]
pub fn rounded(x: f64) -> Value {
    serde_json::Number::from_f64((x * 1e6).round() / 1e6).map_or(Value::Null, Value::Number)
}

/// One column.
pub struct Column<T> {
    /// In JSON. Empty: only in text.
    pub key: &'static str,
    /// Over the column. Empty: only in JSON.
    pub head: &'static str,
    /// As in printf: negative is left-aligned. Longer cells push the rest to the right.
    pub width: i8,
    pub get: for<'a> fn(&'a T) -> Cell<'a>,
}

impl<T> Column<T> {
    #[must_use]
    pub fn in_text(&self) -> bool {
        !self.head.is_empty()
    }
}

/// The headings, as one line.
///
/// # Errors
/// The writer fails.
pub fn header<T>(columns: &[&Column<T>], out: &mut dyn Write) -> io::Result<()> {
    line(columns.iter().filter(|c| c.in_text()).map(|c| (c.width, Cow::Borrowed(c.head))), out)
}

/// One row, as one line.
///
/// # Errors
/// The writer fails.
pub fn row<T>(columns: &[&Column<T>], record: &T, out: &mut dyn Write) -> io::Result<()> {
    let cells: Vec<Cell<'_>> = columns.iter().filter(|c| c.in_text()).map(|c| (c.get)(record)).collect();
    let widths = columns.iter().filter(|c| c.in_text()).map(|c| c.width);
    line(widths.zip(cells.iter().map(Cell::text)), out)
}

/// A space between two cells, none after the last.
fn line<'a>(cells: impl Iterator<Item = (i8, Cow<'a, str>)>, out: &mut dyn Write) -> io::Result<()> {
    for (i, (width, text)) in cells.enumerate() {
        if i > 0 {
            out.write_all(b" ")?;
        }
        let room = usize::from(width.unsigned_abs());
        match width {
            0 => out.write_all(text.as_bytes())?,
            ..0 => write!(out, "{text:<room$}")?,
            _ => write!(out, "{text:>room$}")?,
        }
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Open {
        pid: u64,
        comm: Vec<u8>,
    }

    const COLUMNS: &[Column<Open>] = &[
        Column { key: "pid", head: "PID", width: -6, get: |o| Cell::Uint(o.pid) },
        Column { key: "", head: "N", width: 3, get: |_| Cell::Nothing },
        Column { key: "comm", head: "COMM", width: 0, get: |o| Cell::bytes(&o.comm) },
        Column { key: "x", head: "", width: 0, get: |_| Cell::Int(-1) },
    ];

    #[test]
    fn a_row_is_one_line_whatever_is_in_it() {
        let columns: Vec<_> = COLUMNS.iter().collect();
        let mut out = Vec::new();
        header(&columns, &mut out).unwrap();
        row(&columns, &Open { pid: 7, comm: b"a\nb\x1b[1m".to_vec() }, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "PID      N COMM\n7        - a\\nb\\033[1m\n");
    }

    #[test]
    fn json_keeps_bytes_that_are_no_utf8_beside_the_text() {
        let cell = Cell::bytes(b"\xffx");
        assert_eq!(cell.json(), Value::from("\u{fffd}x"));
        assert_eq!(cell.raw(), Some(b"\xffx".as_slice()));
        assert_eq!(Cell::bytes(b"x").raw(), None);
    }
}
