//! One part of a run, printed.

use anyhow::Result;
use common::cgroup;
use common::hist::{Hist, Unit};
use common::out::Out;
use common::table::{Cell, rounded};
use serde_json::{Map, Value, json};

use crate::args::{Args, By, Span};
use crate::disks;
use crate::names::{self, Flags};
use crate::sections::{Id, Section, Sections, ranked};
use crate::split;

type Key = Vec<(&'static str, Cell<'static>)>;

/// How sections are called, and what is printed of them.
pub struct Report<'a> {
    pub args: &'a Args,
    pub kinds: Vec<By>,
    pub span: Span,
    pub flags: &'a Flags,
    pub disks: disks::Names,
    pub cgroups: cgroup::Names,
}

impl Report<'_> {
    fn unit(&self) -> Unit {
        self.args.unit()
    }

    /// Prints a part: the time if asked for, then a histogram for each section.
    pub fn part(&mut self, out: &mut Out, seconds: f64, mut sections: Sections) -> Result<()> {
        out.report(self.args.timestamp)?;
        if self.kinds.is_empty() {
            sections.entry(Id::default()).or_default(); // JSON says that there was nothing
        }
        self.disks.learn(sections.keys().map(|id| id.dev));
        let sections = ranked(sections);
        for (id, section) in &sections {
            let key = self.key(*id);
            self.section(out, seconds, &key, section)?;
        }
        if self.args.extension {
            let all = |of: fn(&Section) -> &Hist| {
                let mut all = Hist::default();
                sections.iter().for_each(|(_, section)| all.merge(of(section)));
                extension(&all, self.unit())
            };
            out.text("")?;
            match self.span {
                Span::Split => {
                    out.text(&format!("queue  {}", all(|section| &section.queue)))?;
                    out.text(&format!("device {}", all(|section| &section.main)))?;
                }
                _ => out.text(&all(|section| &section.main))?,
            }
        }
        Ok(())
    }

    fn key(&mut self, id: Id) -> Key {
        let owned = |text: String| Cell::Bytes(text.into_bytes().into());
        let mut key = Key::new();
        for kind in &self.kinds {
            key.push(match kind {
                By::Disk => ("disk", owned(self.disks.show(id.dev))),
                By::Partition => ("partition", owned(self.disks.show(id.dev))),
                By::Cgroup if id.cgroup == 0 => ("cgroup", Cell::word("-")),
                By::Cgroup => ("cgroup", owned(self.cgroups.show(id.cgroup))),
                By::Op => ("op", owned(self.flags.op(id.flags))),
                By::Flags => ("flags", owned(self.flags.all(id.flags))),
                By::Size => ("size", Cell::Uint(if id.size == 0 { 0 } else { 1 << (id.size - 1) })),
            });
        }
        key
    }

    fn section(&self, out: &mut Out, seconds: f64, key: &Key, section: &Section) -> Result<()> {
        if out.is_json() {
            return self.records(out, seconds, key, section);
        }
        if section.count() == 0 && section.requeued == 0 {
            return Ok(());
        }
        if !key.is_empty() {
            let words: Vec<String> = key.iter().map(|(name, cell)| word(name, cell)).collect();
            out.text(&format!("\n{}", words.join(" ")))?;
        }
        match self.span {
            Span::Split => split::block(&section.queue, &section.main, self.unit())
                .iter()
                .try_for_each(|line| out.text(line))?,
            _ => out.hist(&[], self.unit(), seconds, &section.main)?,
        }
        remarks(section).iter().try_for_each(|line| out.text(line))
    }

    /// Of a split there are two.
    fn records(&self, out: &mut Out, seconds: f64, key: &Key, section: &Section) -> Result<()> {
        let hists: &[(&str, &Hist)] = match self.span {
            Span::Device => &[("device", &section.main)],
            Span::Total => &[("total", &section.main)],
            Span::Size => &[("size", &section.main)],
            Span::Split => &[("queue", &section.queue), ("device", &section.main)],
        };
        for (span, hist) in hists {
            let mut key = key.clone();
            key.push(("span", Cell::Word((*span).into())));
            out.hist_and(&key, self.unit(), seconds, hist, figures(section))?;
        }
        Ok(())
    }
}

/// `-e`, as bcc has it.
fn extension(hist: &Hist, unit: Unit) -> String {
    let of = |nanos: f64| unit.of_nanos(nanos) as u64;
    let (avg, total, count) = (of(hist.mean()), of(hist.sum() as f64), hist.count());
    let name = unit.name();
    format!("avg = {avg} {name}, total: {total} {name}, count: {count}")
}

/// "disk = vda"; a size is a range.
fn word(name: &str, cell: &Cell<'_>) -> String {
    match (name, cell) {
        ("size", Cell::Uint(from)) if *from > 0 => format!("size = {from}..{}", from * 2 - 1),
        _ => format!("{name} = {}", cell.text()),
    }
}

/// What is counted beside the times, for JSON.
fn figures(section: &Section) -> Vec<(&'static str, Value)> {
    let errors: Map<String, Value> =
        section.errors.iter().map(|(error, count)| (names::error(*error), json!(count))).collect();
    let mut more = vec![
        ("errors", Value::Object(errors)),
        ("requeued", json!(section.requeued)),
        ("unissued", json!(section.unissued)),
    ];
    if section.depth.count() > 0 {
        let (mean, max) = (rounded(section.depth.mean()), section.depth.max());
        more.push(("inflight", json!({"mean": mean, "max": max})));
    }
    more
}

/// The same below a block of text; nothing where there is nothing to say.
fn remarks(section: &Section) -> Vec<String> {
    let mut lines = Vec::new();
    if !section.errors.is_empty() {
        let list = section.errors.iter().map(|(error, count)| format!("{}={count}", names::error(*error)));
        lines.push(format!("# errors: {}", list.collect::<Vec<_>>().join(" ")));
    }
    if section.requeued > 0 {
        lines.push(format!("# requeued={}", section.requeued));
    }
    if section.unissued > 0 {
        lines.push(format!("# ended without being issued, not in the histogram: {}", section.unissued));
    }
    if section.depth.count() > 0 {
        let depth = &section.depth;
        lines.push(format!("# in flight at issue: mean={:.1} max={}", depth.mean(), depth.max()));
    }
    lines
}

/// What the histogram is of, from where to where.
pub fn meaning(span: Span, bio: bool) -> &'static str {
    match (span, bio) {
        (Span::Size, false) => "sizes of requests",
        (Span::Size, true) => "sizes of bios",
        (_, true) => "bios, submission to end",
        (Span::Device, _) => "device time, first issue to completion",
        (Span::Total, _) => "queue and device time, insertion to completion",
        (Span::Split, _) => "queue time, insertion to first issue, beside device time, to completion",
    }
}
