//! One part of a run, printed.

use anyhow::Result;
use common::cgroup::{self, Throttling};
use common::out::Out;
use common::table::Cell;
use serde_json::{Value, json};

use crate::args::{Args, By};
use crate::waits::{Part, Ranked, Section, WHYS};

type Key<'a> = Vec<(&'static str, Cell<'a>)>;

/// What a section is called.
pub struct Names {
    by: Option<By>,
    cgroups: cgroup::Names,
}

impl Names {
    pub fn new(by: Option<By>) -> Names {
        Names { by, cgroups: cgroup::Names::new() }
    }

    /// Of the sections: "tids".
    fn plural(&self) -> &'static str {
        match self.by {
            Some(By::Cpu) => "cpus",
            Some(By::Pid) => "pids",
            Some(By::Tid) => "tids",
            Some(By::Pidns) => "pidnss",
            Some(By::Cgroup) => "cgroups",
            _ => "sections",
        }
    }

    fn key<'a>(&mut self, id: u64, section: &'a Section) -> Key<'a> {
        let comm = ("comm", Cell::bytes(&section.comm));
        match self.by {
            None | Some(By::Why) => vec![],
            Some(By::Cpu) => vec![("cpu", Cell::Uint(id))],
            Some(By::Pid) => vec![("pid", Cell::Uint(id)), comm],
            Some(By::Tid) => vec![("tid", Cell::Uint(id)), comm],
            Some(By::Pidns) => vec![("pidns", Cell::Uint(id))],
            Some(By::Cgroup) => vec![("cgroup", Cell::Bytes(self.cgroups.show(id).into_bytes().into()))],
        }
    }
}

/// Prints a part: the time if asked for, then a histogram for each section.
pub fn part(out: &mut Out, args: &Args, names: &mut Names, seconds: f64, mut part: Part) -> Result<()> {
    out.report(args.timestamp)?;
    if matches!(names.by, None | Some(By::Why)) {
        part.sections.entry(0).or_default(); // JSON says that there was nothing
    }
    let (evictions, evicted) = (part.evictions.len() as u64, part.evicted.clone());
    let Ranked { sections, others } = part.ranked(args.top.map(|top| top as usize));
    for (id, section) in &sections {
        let key = names.key(*id, section);
        hists(out, args, names.by, seconds, &key, section)?;
    }
    let plural = names.plural();
    if let Some((number, section)) = others {
        let key = vec![("others", Cell::Uint(number)), ("of", Cell::word(plural))];
        hists(out, args, names.by, seconds, &key, &section)?;
    }
    if evictions > 0 {
        let key = vec![("evicted", Cell::Uint(evictions)), ("of", Cell::word(plural))];
        hists(out, args, names.by, seconds, &key, &evicted)?;
    }
    Ok(())
}

/// By reason in JSON and if asked for, else as one.
fn hists(
    out: &mut Out,
    args: &Args,
    by: Option<By>,
    seconds: f64,
    key: &Key<'_>,
    section: &Section,
) -> Result<()> {
    if !out.is_json() && by != Some(By::Why) {
        return out.hist(key, args.unit(), seconds, &section.all());
    }
    for (why, hist) in WHYS.iter().zip(&section.waits) {
        // Without a key there is always a record; of a thousand threads most have one kind only.
        if key.is_empty() || hist.count() > 0 {
            let mut key = key.clone();
            key.push(("why", Cell::word(why)));
            out.hist(&key, args.unit(), seconds, hist)?;
        }
    }
    Ok(())
}

/// Part of a wait under cpu.max is quota, not contention: one line on stderr, and for the end record.
pub fn throttled(throttling: &Throttling) -> Value {
    let groups: Vec<Value> = throttling
        .groups
        .iter()
        .map(|(group, t)| {
            json!({"cgroup": group.shown, "nr_throttled": t.nr_throttled, "throttled_usec": t.throttled_usec})
        })
        .collect();
    if let [(group, throttle), rest @ ..] = throttling.groups.as_slice() {
        let more = if rest.is_empty() { String::new() } else { format!(" (and {} more groups)", rest.len()) };
        eprintln!(
            "runqlat: cpu.max throttled cgroup {} {} times, {:.3} s in all{more}: part of the waits is quota, not contention",
            common::text::escape(group.shown.as_bytes()),
            throttle.nr_throttled,
            throttle.throttled_usec as f64 / 1e6,
        );
    }
    groups.into()
}

pub fn nothing_seen(args: &Args) {
    let filtered = !args.pid.is_empty()
        || !args.tid.is_empty()
        || args.comm.is_some()
        || !args.cgroup.is_empty()
        || !args.command.is_empty();
    let why = match (filtered, args.slower) {
        (_, Some(_)) => "no wait was that long",
        (true, None) => "no thread that matches the filters waited for a CPU",
        (false, None) => "no thread waited for a CPU",
    };
    eprintln!("runqlat: {why}");
}
