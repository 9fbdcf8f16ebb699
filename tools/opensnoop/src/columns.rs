//! What a row shows: as libbpf-tools' opensnoop in text, everything in JSON.

use std::borrow::Cow;

use common::table::{Cell, Column};
use nix::errno::Errno;

use crate::args::Args;
use crate::event::Open;
use crate::flags;

type Columns = Vec<&'static Column<Open>>;

const fn text(head: &'static str, width: i8, get: for<'a> fn(&'a Open) -> Cell<'a>) -> Column<Open> {
    Column { key: "", head, width, get }
}

const fn json(key: &'static str, get: for<'a> fn(&'a Open) -> Cell<'a>) -> Column<Open> {
    Column { key, head: "", width: 0, get }
}

static TIME: Column<Open> = text("TIME", -8, |o| Cell::word(&o.time));
static UID: Column<Open> = text("UID", -7, |o| Cell::Uint(o.uid().into()));
static PID: Column<Open> = text("PID", -6, |o| Cell::Uint(o.pid().into()));
static PPID: Column<Open> = text("PPID", -6, |o| Cell::Uint(o.ppid().into()));
static COMM: Column<Open> = text("COMM", -16, |o| Cell::bytes(&o.comm));
static FD: Column<Open> = text("FD", 3, fd);
static ERR: Column<Open> = text("ERR", 3, |o| Cell::Int(o.errno().into()));
static ERR_NAME: Column<Open> = text("ERR", -12, errname);
static FLAGS: Column<Open> = text("FLAGS", -8, |o| Cell::Word(format!("{:08o}", o.flags()).into()));
static MODE: Column<Open> = text("MODE", -5, |o| mode(o).map_or(Cell::word("n/a"), Cell::Word));
static USECS: Column<Open> = text("USECS", 9, usecs);
static PATH: Column<Open> = text("PATH", 0, shown_path);

pub fn in_text(args: &Args) -> Columns {
    let chosen = [
        (args.timestamp, &TIME),
        (args.print_uid, &UID),
        (true, &PID),
        (args.ppid, &PPID),
        (true, &COMM),
        (true, &FD),
        (!args.errname, &ERR),
        (args.errname, &ERR_NAME),
        (args.extended_fields, &FLAGS),
        (args.extended_fields, &MODE),
        (args.timed(), &USECS),
        (true, &PATH),
    ];
    chosen.into_iter().filter(|(wanted, _)| *wanted).map(|(_, column)| column).collect()
}

static JSON: [Column<Open>; 12] = [
    json("pid", |o| Cell::Uint(o.pid().into())),
    json("tid", |o| Cell::Uint(o.tid().into())),
    json("ppid", |o| Cell::Uint(o.ppid().into())),
    json("uid", |o| Cell::Uint(o.uid().into())),
    json("comm", |o| Cell::bytes(&o.comm)),
    json("fd", fd),
    json("err", |o| Cell::Int(o.errno().into())),
    json("errname", errname),
    json("path", |o| Cell::bytes(o.path())),
    json("flags", |o| Cell::Word(flags::names(o.flags()).into())),
    json("mode", |o| mode(o).map_or(Cell::Nothing, Cell::Word)),
    json("call", |o| Cell::word(o.call())),
];
static JSON_NAME: Column<Open> = json("name", |o| Cell::bytes(&o.name));
static JSON_USECS: Column<Open> = json("usecs", usecs);

pub fn in_json(args: &Args) -> Columns {
    let mut columns: Columns = JSON.iter().collect();
    if args.full_path {
        columns.push(&JSON_NAME);
    }
    if args.timed() {
        columns.push(&JSON_USECS);
    }
    columns
}

fn fd(open: &Open) -> Cell<'_> {
    open.fd().map_or(Cell::Nothing, |fd| Cell::Int(fd.into()))
}

fn usecs(open: &Open) -> Cell<'_> {
    open.micros().map_or(Cell::Nothing, |micros| Cell::Float(micros, 1))
}

/// Without O_CREAT and O_TMPFILE the kernel does not look at it.
fn mode(open: &Open) -> Option<Cow<'_, str>> {
    flags::creates(open.flags()).then(|| format!("{:04o}", open.mode()).into())
}

fn errname(open: &Open) -> Cell<'_> {
    Cell::Word(error_name(open.errno()))
}

pub fn error_name(errno: i32) -> Cow<'static, str> {
    // include/linux/errno.h: only a tracer sees them, the program sees EINTR or another try.
    match errno {
        0 => "0".into(),
        512 => "ERESTARTSYS".into(),
        513 => "ERESTARTNOINTR".into(),
        514 => "ERESTARTNOHAND".into(),
        _ => match Errno::from_raw(errno) {
            Errno::UnknownErrno => errno.to_string().into(),
            known => format!("{known:?}").into(),
        },
    }
}

/// A row ends with the path: it is never an empty field.
fn shown_path(open: &Open) -> Cell<'_> {
    match open.path() {
        b"" => Cell::word("\"\""),
        path => Cell::bytes(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_names() {
        assert_eq!(
            [0, 2, 36, 512, 4000].map(error_name),
            ["0", "ENOENT", "ENAMETOOLONG", "ERESTARTSYS", "4000"]
        );
    }
}
