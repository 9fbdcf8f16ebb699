//! What a report lists: waits added up by stack and thread, or by what --by says, in order of their time.

use std::collections::HashMap;

use common::cgroup;
use stack::fold::Line;
use stack::{Named, fold};

use crate::args::{Args, By};
use crate::names::{Frames, Names, marker};
use crate::stacks::Stacks;
use crate::waits::{Key, Part, Sum};

/// Who woke the thread up.
#[derive(Clone)]
pub struct Woken {
    pub comm: Vec<u8>,
    pub pid: u32,
    pub tid: u32,
    pub user: Frames,
    pub kernel: Frames,
}

impl Woken {
    /// An interrupt that wakes a thread is nobody's: whom it interrupted has no part in it.
    fn or_interrupt(self) -> Woken {
        let Some(entry) = self.kernel.iter().position(is_interrupt) else { return self };
        let kernel = self.kernel.iter().take(entry + 1).cloned().collect();
        Woken { comm: b"[interrupt]".to_vec(), pid: 0, tid: 0, user: Frames::default(), kernel }
    }
}

/// How the kernel is entered by an interrupt, on x86 and arm64; faults (`asm_exc_…`) and system calls are not.
fn is_interrupt(frame: &Named) -> bool {
    let entries =
        ["asm_sysvec_", "asm_common_interrupt", "asm_spurious_interrupt", "el1h_64_irq", "el0t_64_irq"];
    frame.name.as_deref().is_some_and(|name| entries.iter().any(|entry| name.starts_with(entry)))
}

/// One entry of a report.
#[derive(Clone)]
pub struct Entry {
    pub pid: u32,
    pub tid: u32,
    /// As ps shows it.
    pub state: char,
    pub preempted: bool,
    pub still: bool,
    pub cgroup: String,
    pub user: Frames,
    pub kernel: Frames,
    pub waker: Option<Woken>,
    pub sum: Sum,
}

/// All entries, the one with the most time last.
pub struct Entries {
    pub shown: Vec<Entry>,
    /// Those that --top and --min-percent leave out, and how many.
    pub others: Option<(usize, Sum)>,
    pub total: Sum,
}

impl Entry {
    fn new(key: &Key, names: &Names, stacks: &Stacks, groups: &mut cgroup::Names) -> Entry {
        let waker = stacks.waker(key.waker).map(|waker| {
            let woken = Woken {
                comm: waker.comm.clone(),
                pid: waker.tgid,
                tid: waker.tid,
                user: names.user(waker.tgid, waker.user),
                kernel: names.kernel(waker.kernel),
            };
            woken.or_interrupt()
        });
        Entry {
            pid: key.tgid,
            tid: key.tid,
            state: key.state.into(),
            preempted: key.preempted(),
            still: key.still(),
            cgroup: if key.cgroup == 0 { String::new() } else { groups.show(key.cgroup) },
            user: names.user(key.tgid, key.user),
            kernel: names.kernel(key.kernel),
            waker,
            sum: Sum::default(),
        }
    }

    /// Waits for which there was no counter.
    fn homeless(sum: &Sum) -> Entry {
        Entry {
            pid: 0,
            tid: 0,
            state: '?',
            preempted: false,
            still: false,
            cgroup: String::new(),
            user: [marker("[stack not kept]")].into(),
            kernel: Frames::default(),
            waker: None,
            sum: Sum { comm: b"[unknown]".to_vec(), ..sum.clone() },
        }
    }

    /// Frames of a folded line.
    pub fn folded(&self, args: &Args) -> String {
        let root = match args.by {
            Some(By::Thread) => format!("{}-{}", self.comm(), self.tid),
            Some(By::Process) => format!("{}-{}", self.comm(), self.pid),
            Some(By::Cgroup) => fold::escape(self.cgroup.as_bytes()).into_owned(),
            Some(By::State) => self.state.to_string(),
            None | Some(By::Stack) => self.comm(),
        };
        let line = if self.preempted { Line::new(b"[preempted]").marker(&root) } else { Line::own(&root) };
        let mut line = line.frames(&self.user);
        if args.delimited && !self.user.is_empty() && !self.kernel.is_empty() {
            line = line.marker("-");
        }
        line = line.frames(&self.kernel);
        if self.still {
            line = line.marker("[still blocked]");
        }
        if let Some(waker) = &self.waker {
            // Innermost of the waker next to the wait that it ended, as offwaketime has it.
            let upside = |frames: &Frames| frames.iter().rev().cloned().collect::<Vec<_>>();
            line = line.marker("--").frames(&upside(&waker.kernel)).frames(&upside(&waker.user));
            line = line.marker(&fold::escape(&waker.comm));
        }
        line.stack()
    }

    fn comm(&self) -> String {
        fold::escape(&self.sum.comm).into_owned()
    }
}

/// What waits are added up by.
#[derive(PartialEq, Eq, Hash)]
enum Group {
    Stack(String, u32, u32, u8),
    Thread(u32, u32),
    Process(u32),
    Cgroup(String),
    State(u8),
}

pub fn entries(
    part: &Part,
    args: &Args,
    names: &Names,
    stacks: &Stacks,
    groups: &mut cgroup::Names,
) -> Entries {
    let mut grouped: HashMap<Group, Entry> = HashMap::new();
    let mut total = part.homeless.clone();
    for (key, sum) in &part.rows {
        total.add(sum);
        let entry = Entry::new(key, names, stacks, groups);
        let group = match args.by {
            None => Group::Stack(with_offsets(&entry, args), key.tgid, key.tid, key.state),
            Some(By::Stack) => Group::Stack(with_offsets(&entry, args), 0, 0, 0),
            Some(By::Thread) => Group::Thread(key.tgid, key.tid),
            Some(By::Process) => Group::Process(key.tgid),
            Some(By::Cgroup) => Group::Cgroup(entry.cgroup.clone()),
            Some(By::State) => Group::State(key.state),
        };
        let entry = grouped.entry(group).or_insert(entry);
        entry.sum.add(sum);
    }
    let mut all: Vec<Entry> = grouped.into_values().collect();
    if part.homeless.count > 0 {
        all.push(Entry::homeless(&part.homeless));
    }
    // Threads that hang all the time have equal times: those that sleep uninterruptibly come last.
    let rank = |state| "IRSPTtKD".chars().position(|letter| letter == state);
    let key = |entry: &Entry| (entry.sum.ns, rank(entry.state), entry.tid);
    all.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.folded(args).cmp(&b.folded(args))));
    let least = args.min_percent.map_or(0.0, |percent| total.ns as f64 * percent / 100.0);
    let most = args.top.map_or(usize::MAX, |top| usize::try_from(top).unwrap_or(usize::MAX));
    let hidden = all.iter().take_while(|entry| (entry.sum.ns as f64) < least).count();
    let hidden = hidden.max(all.len().saturating_sub(most));
    let shown = all.split_off(hidden);
    let others = (!all.is_empty()).then(|| {
        let mut sum = Sum::default();
        all.iter().for_each(|entry| sum.add(&entry.sum));
        (all.len(), sum)
    });
    Entries { shown, others, total }
}

/// Stacks are the same if their functions are; with --offset, if their addresses are.
fn with_offsets(entry: &Entry, args: &Args) -> String {
    let mut text = entry.folded(args);
    if args.offset || args.lines {
        for frame in entry.user.iter().chain(&*entry.kernel) {
            text.push_str(&format!(" {:x}", frame.offset));
        }
    }
    text
}
