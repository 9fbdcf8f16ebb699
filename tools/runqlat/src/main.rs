//! runqlat: how long runnable threads wait for a CPU.

use std::mem::MaybeUninit;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::cgroup::{Cgroup, Scope, ThrottleWatch};
use common::child::Child;
use common::coverage::Coverage;
use common::events::{Events, WAKE_BYTES};
use common::filter::{self, Wanted};
use common::hook::{Hook, Links, Need, Via, Way};
use common::out::{End, Out};
use common::start::Start;
use common::tick::{Ticker, Wake};
use common::{cli, object};
use libbpf_rs::skel::{OpenSkel as _, Skel as _, SkelBuilder as _};

use crate::args::{Args, By};
use crate::slower::Slow;
use crate::waits::Waits;

mod args;
mod report;
mod slower;
mod waits;

mod bpf {
    include!(concat!(env!("OUT_DIR"), "/bpf.rs"));
}

/// Wakeups and switches stand or fall together. What ends a wait is attached first.
const HOOKS: &[Hook] = &[WAITS, filter::CHILDREN];

const WAITS: Hook = Hook {
    what: "run queue waits",
    optional: false,
    ways: &[
        Way {
            via: Via::TpBtf("sched_switch"),
            progs: &["switch_btf", "wakeup_btf", "wakeup_new_btf", "sweep_btf"],
            needs: &[Need::Cmpxchg],
            blind: "",
        },
        Way {
            via: Via::RawTp("sched_switch"),
            progs: &["switch_raw", "wakeup_raw", "wakeup_new_raw", "sweep_raw"],
            needs: &[Need::OwnTypes],
            blind: "",
        },
        Way {
            via: Via::RawTp("sched_switch"),
            progs: &["switch_raw", "wakeup_raw", "wakeup_new_raw"],
            needs: &[],
            blind: "who waits when it starts, and which waits it missed at the end",
        },
    ],
};

/// How often the keyed histograms are looked after, so that none is full.
const LOOK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    cli::start(|args: &Args| &args.shared, run)
}

fn run(args: &Args) -> Result<ExitCode> {
    let needed = |hook: &Hook| hook.what == WAITS.what || !args.command.is_empty();
    let start = Start::new(&args.shared, HOOKS, needed, args.target())?;
    let Start { kernel, ladder, cgroups, wanted, signals, mut child } = start;
    if args.slower.is_some() {
        Need::RingAnywhere.require("single waits (--slower)", &kernel)?;
    }

    let mut place = MaybeUninit::uninit();
    let mut builder = bpf::RunqlatSkelBuilder::default();
    kernel.lend_types(&mut builder.obj_builder)?;
    let mut open = builder.open(&mut place)?;
    let cfg = &mut open.maps.rodata_data.as_deref_mut().context("rodata is not mapped")?.cfg;
    wanted.raw(kernel.own_tgid()).write_to(&mut cfg.filter);
    cfg.unit_ns = args.unit().nanos();
    cfg.slower_ns = args.slower.map_or(0, |limit| limit.as_nanos() as u64);
    cfg.wake_bytes = WAKE_BYTES;
    cfg.by = by_number(args.by());
    if !Waits::is_keyed(args.by()) {
        // 14 MB each, and 5 ms to make them.
        open.maps.sparse_a.set_max_entries(1)?;
        open.maps.sparse_b.set_max_entries(1)?;
    }
    wanted.prepare(open.open_object_mut())?;
    ladder.apply(open.open_object_mut())?;
    let skel = object::load(open, args.shared.verbose)?;
    if args.shared.check {
        return Ok(ExitCode::SUCCESS);
    }
    wanted.fill(skel.object())?;
    let waits = args.slower.is_none().then(|| Waits::new(&skel.maps, args.by())).transpose()?;
    let links = ladder.attach(skel.object())?;

    let throttle = ThrottleWatch::start(scope(&wanted, &cgroups));
    object::begin_after(skel.object(), || links.iterate("sweep"))?;
    let tick = Ticker::new(&args.every, signals);
    if let Some(child) = &mut child {
        child.release()?;
    }
    args.shared.ready("runqlat", &ladder)?;
    let mut run = Run { args, out: Out::new("runqlat", &args.shared), tick, child, events: 0 };
    match waits {
        Some(waits) => run.histograms(&skel, waits, &links)?,
        None => run.rows(&skel)?,
    }
    let seconds = run.tick.length().as_secs_f64();
    drop(links);
    let coverage = Coverage::read(skel.object())?;
    let throttled = report::throttled(&throttle.end());
    if run.events == 0 {
        report::nothing_seen(args);
    }
    let end = End {
        seconds,
        events: run.events,
        what: "waits",
        coverage: &coverage,
        ladder: &ladder,
        more: vec![("throttled", throttled)],
    };
    let code = run.out.finish(&end)?;
    match run.child {
        Some(child) => child.end(run.tick.forward, code),
        None => Ok(code),
    }
}

/// `enum by` in the BPF program; what its per-CPU arrays keep apart anyway is nothing to it.
fn by_number(by: Option<By>) -> u32 {
    match by {
        None | Some(By::Why | By::Cpu) => 0,
        Some(By::Pid) => 1,
        Some(By::Tid) => 2,
        Some(By::Pidns) => 3,
        Some(By::Cgroup) => 4,
    }
}

/// The groups whose quota may be part of the waits.
fn scope(wanted: &Wanted, cgroups: &[Cgroup]) -> Scope {
    match wanted {
        _ if !cgroups.is_empty() => Scope::Cgroups(cgroups.to_vec()),
        Wanted { pids, .. } if !pids.is_empty() => Scope::Processes(pids.clone()),
        Wanted { tids, .. } if !tids.is_empty() => Scope::Threads(tids.clone()),
        Wanted { command: Some(pid), .. } => Scope::Processes(vec![*pid]),
        _ => Scope::Everything,
    }
}

// SAFETY: integers without padding, the same as `common::filter::Raw`.
unsafe impl plain::Plain for bpf::types::filter {}

struct Run<'a> {
    args: &'a Args,
    out: Out,
    tick: Ticker,
    child: Option<Child>,
    events: u64,
}

impl Run<'_> {
    fn histograms(&mut self, skel: &bpf::RunqlatSkel<'_>, mut waits: Waits<'_>, links: &Links) -> Result<()> {
        let by = self.args.by();
        let mut names = report::Names::new(by);
        let look = Waits::is_keyed(by).then_some(LOOK);
        self.out.text("Tracing run queue latency... Hit Ctrl-C to end.")?;
        self.out.flush()?;
        loop {
            let wake = self.tick.wait(look, self.child.as_ref())?;
            let Wake::Part { seconds, last } = wake else {
                waits.collect()?;
                continue;
            };
            if last {
                links.iterate("sweep")?;
                object::end(skel.object())?;
            }
            let part = waits.part()?;
            self.events += part.count();
            report::part(&mut self.out, self.args, &mut names, seconds, part)?;
            self.out.flush()?;
            if last {
                return Ok(());
            }
        }
    }

    fn rows(&mut self, skel: &bpf::RunqlatSkel<'_>) -> Result<()> {
        let mut events = Events::new(&skel.maps.ring)?;
        let columns: Vec<_> = slower::COLUMNS.iter().collect();
        let micros = self.args.slower.unwrap_or_default().as_nanos() as f64 / 1000.0;
        self.out.text(&format!("Tracing run queue latency of {micros} us or more... Hit Ctrl-C to end."))?;
        self.out.header(&columns)?;
        self.out.flush()?;
        loop {
            let wake = events.wait(&mut self.tick, self.child.as_ref())?;
            let last = matches!(wake, Wake::Part { last: true, .. });
            if last {
                object::end(skel.object())?;
            }
            self.out.clock.adjust();
            events.drain(last, |bytes| {
                let event = plain::from_bytes(bytes).ok().context("an event of another shape")?;
                let slow = Slow::new(event, self.out.clock.local(event.at));
                self.events += 1;
                self.out.row(slow.at, &columns, &slow)
            })?;
            self.out.flush()?;
            if last {
                return Ok(());
            }
        }
    }
}
