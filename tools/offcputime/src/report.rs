//! A part of a run, printed: as BCC's blocks, folded lines, a table or JSON.

use std::io::Write;

use anyhow::Result;
use common::out::Out;
use common::table::{Cell, Column, rounded};
use common::text::escape;
use serde_json::{Map, Value, json};
use stack::fold::Profile;
use stack::{Early, Named, Style, block, labels};

use crate::args::{Args, By};
use crate::entries::{Entries, Entry, Woken};
use crate::waits::{Sum, Waits};

/// Whose waits.
pub fn who(args: &Args) -> String {
    let list = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    match args {
        Args { pid, .. } if !pid.is_empty() => format!("PIDs {}", list(pid)),
        Args { tid, .. } if !tid.is_empty() => format!("TIDs {}", list(tid)),
        Args { user_threads_only: true, .. } => "user threads".to_owned(),
        Args { kernel_threads_only: true, .. } => "kernel threads".to_owned(),
        _ => "all threads".to_owned(),
    }
}

/// The first line, as BCC's.
pub fn banner(args: &Args) -> String {
    let who = who(args);
    let stack = match args {
        Args { user_stacks_only: true, .. } => "user",
        Args { kernel_stacks_only: true, .. } => "kernel",
        _ => "user + kernel",
    };
    let end = match args.duration {
        Some(length) => format!(" for {} secs.", length.as_secs_f64()),
        None => "... Hit Ctrl-C to end.".to_owned(),
    };
    format!("Tracing off-CPU time (us) of {who} by {stack} stack{end}")
}

/// Under the first line: what is not exact.
pub fn pooled(args: &Args) -> Option<String> {
    let quantum = args.pooled()?;
    Some(format!(
        "# Waits shorter than {quantum:?} are pooled by thread: their time is exact, which stack it went to is \
         drawn (--exact: is not)"
    ))
}

pub fn part(out: &mut Out, args: &Args, entries: &Entries) -> Result<()> {
    match args.by {
        _ if args.folded => folded(out, args, entries),
        None | Some(By::Stack) => stacks(out, args, entries),
        Some(by) => table(out, by, entries),
    }
}

fn folded(out: &mut Out, args: &Args, entries: &Entries) -> Result<()> {
    for (stack, usecs) in profile(args, entries) {
        out.text(&format!("{stack} {usecs}"))?;
    }
    Ok(())
}

/// Microseconds by folded stack.
pub fn profile(args: &Args, entries: &Entries) -> Profile {
    let mut nanos = Profile::new();
    for entry in &entries.shown {
        *nanos.entry(entry.folded(args)).or_default() += entry.sum.ns;
    }
    if let Some((number, sum)) = &entries.others {
        nanos.insert(format!("[{number}\\040others]"), sum.ns);
    }
    nanos.into_iter().map(|(stack, ns)| (stack, usecs(ns))).collect()
}

fn usecs(ns: u64) -> u64 {
    (ns + 500) / 1000
}

fn share(sum: &Sum, total: &Sum) -> f64 {
    100.0 * sum.ns as f64 / (total.ns as f64).max(1.0)
}

fn stacks(out: &mut Out, args: &Args, entries: &Entries) -> Result<()> {
    if out.is_json() {
        for entry in &entries.shown {
            out.object("stack", record(args, entry))?;
        }
        if let Some((number, sum)) = &entries.others {
            let mut object = Map::new();
            object.insert("others".into(), (*number).into());
            figures(&mut object, sum);
            out.object("stack", object)?;
        }
        return Ok(());
    }
    let style = Style { offsets: args.offset, modules: args.shared.verbose, lines: args.lines };
    out.print(|sink| {
        if let Some((number, sum)) = &entries.others {
            writeln!(sink, "    [{number} others]")?;
            line(sink, sum, &entries.total)?;
        }
        for entry in &entries.shown {
            self::entry(sink, args, style, entry, &entries.total)?;
        }
        let Sum { ns, count, .. } = &entries.total;
        let stacks = entries.shown.len() + entries.others.as_ref().map_or(0, |(number, _)| *number);
        Ok(writeln!(sink, "# total={} count={count} stacks={stacks} (usecs)", usecs(*ns))?)
    })
}

fn entry(sink: &mut dyn Write, args: &Args, style: Style, entry: &Entry, total: &Sum) -> Result<()> {
    if entry.still {
        writeln!(sink, "    [still blocked]")?;
    }
    frames(sink, args, style, &entry.kernel, &entry.user)?;
    if entry.preempted {
        writeln!(sink, "    [preempted]")?;
    }
    let comm = escape(&entry.sum.comm);
    match args.by {
        Some(By::Stack) => writeln!(sink, "    {:<16} {comm}", "-")?,
        _ => writeln!(sink, "    {:<16} {comm} ({}) {}", "-", entry.tid, entry.state)?,
    }
    if let Some(Woken { comm, tid, user, kernel, .. }) = &entry.waker {
        writeln!(sink, "    -- woken by")?;
        frames(sink, args, style, kernel, user)?;
        writeln!(sink, "    {:<16} {} ({tid})", "-", escape(comm))?;
    }
    line(sink, &entry.sum, total)
}

fn frames(sink: &mut dyn Write, args: &Args, style: Style, kernel: &[Named], user: &[Named]) -> Result<()> {
    block(kernel, style, sink)?;
    if args.delimited && !kernel.is_empty() && !user.is_empty() {
        writeln!(sink, "    --")?;
    }
    Ok(block(user, style, sink)?)
}

/// The number stands first and alone in the peers' line: scripts read it there.
fn line(sink: &mut dyn Write, sum: &Sum, total: &Sum) -> Result<()> {
    let waits = if sum.count == 1 { "wait" } else { "waits" };
    let share = share(sum, total);
    let longest = usecs(sum.longest);
    writeln!(sink, "        {} ({share:.1}%, {} {waits}, max {longest})\n", usecs(sum.ns), sum.count)?;
    Ok(())
}

fn record(args: &Args, entry: &Entry) -> Map<String, Value> {
    let mut object = Map::new();
    if args.by.is_none() {
        object.insert("pid".into(), entry.pid.into());
        object.insert("tid".into(), entry.tid.into());
    }
    object.insert("comm".into(), String::from_utf8_lossy(&entry.sum.comm).into());
    if args.by.is_none() {
        object.insert("state".into(), entry.state.to_string().into());
    }
    figures(&mut object, &entry.sum);
    object.insert("kernel".into(), names(&entry.kernel));
    object.insert("user".into(), names(&entry.user));
    object.insert("preempted".into(), entry.preempted.into());
    object.insert("still_blocked".into(), entry.still.into());
    if let Some(Woken { comm, pid, tid, user, kernel }) = &entry.waker {
        let comm = String::from_utf8_lossy(comm);
        let waker =
            json!({"pid": pid, "tid": tid, "comm": comm, "kernel": names(kernel), "user": names(user)});
        object.insert("waker".into(), waker);
    }
    object
}

fn figures(object: &mut Map<String, Value>, sum: &Sum) {
    object.insert("usecs".into(), rounded(sum.ns as f64 / 1000.0));
    object.insert("count".into(), sum.count.into());
    object.insert("max_usecs".into(), rounded(sum.longest as f64 / 1000.0));
    object.insert("pooled_usecs".into(), rounded(sum.pooled as f64 / 1000.0));
}

fn names(frames: &[Named]) -> Value {
    labels(frames).map(|label| Value::from(label.into_owned())).collect()
}

/// What is to be known of the run as a whole, on stderr.
pub fn notes(args: &Args, waits: &Waits<'_>, early: &Early) {
    if let Some(line) = early.line().filter(|_| !args.shared.json) {
        eprintln!("offcputime: {line}");
    }
    if waits.symbols.stopped() {
        eprintln!("offcputime: interrupted: not all names were looked for");
    }
    let Sum { ns, count, .. } = waits.not_kept;
    if count > 0 {
        eprintln!(
            "offcputime: {} us in {count} waits without their stacks ([stack not kept]): see --stack-storage-size",
            usecs(ns)
        );
    }
    if args.shared.verbose {
        let (stacks, bytes, refused) = waits.stacks.figures();
        eprintln!("offcputime: {stacks} stacks in {} KiB, {refused} not kept", bytes >> 10);
    }
}

/// A line of a table.
struct Line {
    entry: Entry,
    share: f64,
}

const SHARE: Column<Line> =
    Column { key: "percent", head: "SHARE%", width: 6, get: |line| Cell::Float(line.share, 1) };
const USECS: Column<Line> = Column {
    key: "usecs",
    head: "USECS",
    width: 12,
    get: |line| Cell::Float(line.entry.sum.ns as f64 / 1000.0, 0),
};
const COUNT: Column<Line> =
    Column { key: "count", head: "COUNT", width: 9, get: |line| Cell::Uint(line.entry.sum.count) };
const LONGEST: Column<Line> = Column {
    key: "max_usecs",
    head: "MAX",
    width: 12,
    get: |line| Cell::Float(line.entry.sum.longest as f64 / 1000.0, 0),
};
const PID: Column<Line> =
    Column { key: "pid", head: "PID", width: -7, get: |line| Cell::Uint(line.entry.pid.into()) };
const TID: Column<Line> =
    Column { key: "tid", head: "TID", width: -7, get: |line| Cell::Uint(line.entry.tid.into()) };
const COMM: Column<Line> =
    Column { key: "comm", head: "COMM", width: 0, get: |line| Cell::bytes(&line.entry.sum.comm) };
const CGROUP: Column<Line> =
    Column { key: "cgroup", head: "CGROUP", width: 0, get: |line| Cell::bytes(line.entry.cgroup.as_bytes()) };
const STATE: Column<Line> = Column {
    key: "state",
    head: "STATE",
    width: 0,
    get: |line| Cell::Word(line.entry.state.to_string().into()),
};

fn table(out: &mut Out, by: By, entries: &Entries) -> Result<()> {
    let mut columns = vec![&USECS, &SHARE, &COUNT, &LONGEST];
    columns.extend(
        match by {
            By::Thread => [Some(&PID), Some(&TID), Some(&COMM)],
            By::Process => [Some(&PID), Some(&COMM), None],
            By::Cgroup => [Some(&CGROUP), None, None],
            By::State | By::Stack => [Some(&STATE), None, None],
        }
        .into_iter()
        .flatten(),
    );
    out.header(&columns)?;
    if let Some((number, sum)) = &entries.others {
        let share = share(sum, &entries.total);
        out.text(&format!(
            "{:>12} {share:>6.1} {:>9} {:>12} [{number} others]",
            usecs(sum.ns),
            sum.count,
            usecs(sum.longest)
        ))?;
    }
    let at = common::clock::monotonic();
    for entry in &entries.shown {
        out.row(at, &columns, &Line { entry: entry.clone(), share: share(&entry.sum, &entries.total) })?;
    }
    Ok(())
}
