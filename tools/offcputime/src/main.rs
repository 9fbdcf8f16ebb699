//! offcputime: where threads wait, and how long.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use common::child::Child;
use common::coverage::Coverage;
use common::filter::{self, Raw};
use common::hook::{Hook, Links, Via};
use common::out::{End, Out};
use common::start::Start;
use common::tick::{Ticker, Wake};
use common::{cgroup, cli, clock, object};
use libbpf_rs::Object;
use libbpf_rs::skel::{OpenSkel as _, Skel as _, SkelBuilder as _};
use stack::{Early, Options, Symbols};

use crate::args::{Args, By};
use crate::entries::Entries;
use crate::graph::Graph;
use crate::names::Names;
use crate::sweep::Sweep;
use crate::times::Times;
use crate::waits::{Part, Waits};
use crate::walk::Walk;

mod args;
mod asleep;
mod blocked;
mod calls;
mod entries;
mod graph;
mod hooks;
mod names;
mod report;
mod size;
mod stacks;
mod state;
mod sweep;
mod times;
mod verdict;
mod waits;
mod walk;

mod bpf {
    include!(concat!(env!("OUT_DIR"), "/bpf.rs"));
}

fn main() -> ExitCode {
    cli::start(|args: &Args| &args.shared, run)
}

fn run(args: &Args) -> Result<ExitCode> {
    args.check()?;
    let graph = Graph::prepare(args)?;
    let needed = |hook: &Hook| match hook.what {
        what if what == filter::CHILDREN.what => !args.command.is_empty(),
        what if what == hooks::WAKER.what => args.waker,
        _ => true,
    };
    let start = Start::new(&args.shared, hooks::HOOKS, needed, args.target())?;
    let Start { kernel, ladder, wanted, signals, mut child, .. } = start;
    // It has threads: signals are held back by now, and the command is forked.
    let symbols = Symbols::new(Options { lines: args.lines });
    if let Some(why) = symbols.kernel_hidden().filter(|_| !args.user_stacks_only) {
        eprintln!("offcputime: {why}");
    }

    let mut place = MaybeUninit::uninit();
    let mut builder = bpf::OffcputimeSkelBuilder::default();
    kernel.lend_types(&mut builder.obj_builder)?;
    let mut open = builder.open(&mut place)?;
    let iterator = sweep::iterator(&kernel, &ladder);
    let direct = matches!(ladder.via(hooks::WAITS.what), Some(Via::TpBtf(_)));
    // Only what runs in the kernel can reach a task's storage.
    let storage = direct && iterator.is_some() && kernel.has_safe_task_storage();
    configure(&mut open, args, wanted.raw(kernel.own_tgid()), wanted.command, (direct, storage))?;
    wanted.prepare(open.open_object_mut())?;
    object::choose_starts(open.open_object_mut(), storage)?;
    ladder.apply(open.open_object_mut())?;
    drop(kernel); // its types are some megabytes, which libbpf now needs for its own copy
    let skel = object::load(open, args.shared.verbose)?;
    if args.shared.check {
        return Ok(ExitCode::SUCCESS);
    }
    wanted.fill(skel.object())?;
    let links = ladder.attach(skel.object())?;

    let mut waits =
        Waits::new(&skel.maps, args.stack_storage_size, args.perf_max_stack_depth as usize, symbols)?;
    let mut sweep = match iterator {
        Some(program) => Sweep::Iter(program),
        None => Sweep::Proc(Box::new(Walk::new(&skel.maps.start_hash, args, wanted, direct))),
    };
    object::begin_after(skel.object(), || {
        sweep.begin(&links, &mut waits)?;
        waits.look()?; // at once: blocked threads may go on
        waits.settle();
        let times = Times { began: clock::monotonic(), until: 0, forgot: 0 };
        times.set(skel.object())?;
        waits.times = times;
        Ok(())
    })?;
    let tick = Ticker::new(&args.every(), signals);
    waits.symbols.stop_when(for_long(tick.interrupted()?));
    if let Some(child) = &mut child {
        child.release()?;
    }
    args.shared.ready("offcputime", &ladder)?;
    let out = Out::new("offcputime", &args.shared);
    let mut run = Run { args, out, tick, child, waits, sweep, events: 0, early: Early::default() };
    run.go(skel.object(), &links, graph)?;
    let Run { out, tick, child, waits, sweep, events, early, .. } = run;
    drop(links);
    let mut coverage = Coverage::read(skel.object())?;
    sweep.add_to(&mut coverage);
    report::notes(args, &waits, &early);
    let (stacks, _, refused) = waits.stacks.figures();
    let end = End {
        seconds: waits.times.seconds(),
        events,
        what: "waits",
        coverage: &coverage,
        ladder: &ladder,
        more: vec![
            ("stacks", stacks.into()),
            ("stacks_not_kept", refused.into()),
            ("user_stacks_ended_early", early.count().into()),
        ],
    };
    let code = out.finish(&end)?;
    match child {
        Some(child) => child.end(tick.forward, code),
        None => Ok(code),
    }
}

/// A signal that comes while an interval is being named ends the run, not the names: the report that is under way and
/// the last one want theirs. Only if that takes long it has to stop.
fn for_long(interrupted: impl Fn() -> bool) -> impl Fn() -> bool {
    let since = Cell::new(None);
    move || {
        since.set(interrupted().then(|| since.get().unwrap_or_else(Instant::now)));
        since.get().is_some_and(|since| since.elapsed() > LONG)
    }
}

const LONG: Duration = Duration::from_secs(3);

fn configure(
    open: &mut bpf::OpenOffcputimeSkel<'_>,
    args: &Args,
    filter: Raw,
    command: Option<u32>,
    (direct, storage): (bool, bool),
) -> Result<()> {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let cfg = &mut open.maps.rodata_data.as_deref_mut().context("rodata is not mapped")?.cfg;
    filter.write_to(&mut cfg.filter);
    cfg.min_ns = args.min_block_time.map_or(0, nanos);
    cfg.max_ns = args.max_block_time.map_or(u64::MAX, nanos);
    cfg.quantum_ns = args.pooled().map_or(0, nanos);
    cfg.wake_bytes = WAKE_BYTES;
    cfg.depth = args.perf_max_stack_depth;
    cfg.states = args.states().bits();
    cfg.threads = match args {
        Args { user_threads_only: true, .. } => 1,
        Args { kernel_threads_only: true, .. } => 2,
        _ => 0,
    };
    cfg.user_stacks = (!args.kernel_stacks_only).into();
    cfg.kernel_stacks = (!args.user_stacks_only).into();
    cfg.preempted = args.runnable().into();
    cfg.by_thread = matches!(args.by, None | Some(By::Stack | By::Thread)).into();
    cfg.by_cgroup = (args.by == Some(By::Cgroup)).into();
    cfg.by_leader = (args.by == Some(By::Process)).into();
    cfg.kernel_at_leave = (!direct).into();
    cfg.storage = storage.into();
    cfg.command = command.unwrap_or(0);
    if !storage {
        open.maps.start_hash.set_max_entries(room_for_threads())?;
    }
    Ok(())
}

/// Of the ring, 2 MiB: we are woken when so much more has come.
const WAKE_BYTES: u64 = 1 << 18;

/// Entries of the hash of threads, which cannot grow: twice as many as there are now.
fn room_for_threads() -> u32 {
    let loadavg = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let total = loadavg.split_whitespace().nth(3).and_then(|field| field.split_once('/'));
    let threads: u32 = total.and_then(|(_, total)| total.parse().ok()).unwrap_or(0);
    threads.saturating_mul(2).clamp(8192, 1 << 18)
}

// SAFETY: integers without padding, the same as `common::filter::Raw`.
unsafe impl plain::Plain for bpf::types::filter {}

struct Run<'a> {
    args: &'a Args,
    out: Out,
    tick: Ticker,
    child: Option<Child>,
    waits: Waits<'a>,
    sweep: Sweep<'a>,
    events: u64,
    early: Early,
}

impl Run<'_> {
    fn go(&mut self, object: &Object, links: &Links, graph: Graph) -> Result<()> {
        if !self.args.folded && !self.args.only_difference() {
            self.out.text(&report::banner(self.args))?;
            if let Some(line) = report::pooled(self.args) {
                self.out.text(&line)?;
            }
            self.out.flush()?;
        }
        let mut groups = cgroup::Names::new();
        loop {
            let wake = self.waits.events().wait(&mut self.tick, self.child.as_ref())?;
            let Wake::Part { last, .. } = wake else {
                self.waits.look()?;
                continue;
            };
            let part = self.part(object, links, last)?;
            if last {
                self.waits.symbols.stop_when(self.tick.interrupted()?);
            }
            let rows = part.rows.keys().filter(|_| !self.args.is_table());
            let names = Names::find(&mut self.waits.symbols, &self.waits.stacks, rows, &mut self.early);
            let entries = entries::entries(&part, self.args, &names, &self.waits.stacks, &mut groups);
            if !Graph::is_all(self.args) {
                self.report(&entries)?;
            }
            if last {
                let seconds = self.waits.times.seconds();
                graph.finish(&mut self.out, self.args, &entries, seconds)?;
                return self.out.flush();
            }
            if self.waits.make_room(&part, || self.sweep.in_use()) {
                self.waits.times.forgot += 1;
                self.waits.times.set(object)?;
            }
        }
    }

    /// Takes what has been counted since the last part, and what is under way.
    fn part(&mut self, object: &Object, links: &Links, last: bool) -> Result<Part> {
        self.waits.times.until = clock::monotonic();
        self.waits.times.set(object)?;
        self.sweep.end(object, links, &mut self.waits, last)?;
        let part = self.waits.part()?;
        self.events += part.rows.values().map(|sum| sum.count).sum::<u64>() + part.homeless.count;
        Ok(part)
    }

    fn report(&mut self, entries: &Entries) -> Result<()> {
        if !self.args.folded {
            self.out.report(self.args.interval.is_some())?;
        }
        report::part(&mut self.out, self.args, entries)?;
        self.out.flush()
    }
}
