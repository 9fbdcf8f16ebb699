//! opensnoop: who opens which file, and how it went.

use std::io::Write as _;
use std::mem::MaybeUninit;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use common::child::Child;
use common::coverage::Coverage;
use common::events::Events;
use common::hook::Via;
use common::out::{End, Out};
use common::start::Start;
use common::tick::{Ticker, Wake};
use common::{cli, maps, object};
use libbpf_rs::MapCore as _;
use libbpf_rs::skel::{OpenSkel as _, Skel as _, SkelBuilder as _};

use crate::args::Args;
use crate::event::Open;
use crate::globs::Globs;
use crate::summary::Summary;

mod args;
mod columns;
mod event;
mod flags;
mod globs;
mod hooks;
mod path;
mod summary;

mod bpf {
    include!(concat!(env!("OUT_DIR"), "/bpf.rs"));
}

fn main() -> ExitCode {
    cli::start(|args: &Args| &args.shared, run)
}

fn run(args: &Args) -> Result<ExitCode> {
    args.check()?;
    let globs = args.globs()?;
    let needed = |hook: &_| hooks::wanted(hook, args.timed(), !args.command.is_empty());
    let start = Start::new(&args.shared, hooks::HOOKS, needed, args.target())?;
    let Start { kernel, ladder, wanted, signals, mut child, .. } = start;
    if args.shared.check {
        std::io::stdout().lock().write_all(hooks::routes(&ladder).as_bytes())?;
    }

    let mut place = MaybeUninit::uninit();
    let mut builder = bpf::OpensnoopSkelBuilder::default();
    kernel.lend_types(&mut builder.obj_builder)?;
    let mut open = builder.open(&mut place)?;
    let typed = !matches!(ladder.via(hooks::CALLS.what), Some(Via::RawTp(_)));
    let storage = typed && kernel.has_safe_task_storage();
    let ring_bytes = args.ring_bytes()?;
    open.maps.ring.set_max_entries(ring_bytes)?;
    let cfg = &mut open.maps.rodata_data.as_deref_mut().context("rodata is not mapped")?.cfg;
    let by_flags = flags::Flags::any(&args.flag_filter);
    wanted.raw(kernel.own_tgid()).write_to(&mut cfg.filter);
    cfg.slower_ns = args.slower.map_or(0, |limit| limit.as_nanos() as u64);
    cfg.wake_bytes = u64::from(ring_bytes / 4);
    cfg.any_flags = by_flags.bits;
    cfg.access = by_flags.access;
    cfg.by_flags = (!args.flag_filter.is_empty()).into();
    cfg.uid = args.uid.unwrap_or(0);
    cfg.by_uid = args.uid.is_some().into();
    cfg.failed = args.failed.into();
    cfg.full = args.walks().into();
    cfg.latency = args.timed().into();
    cfg.storage = storage.into();
    object::choose_starts(open.open_object_mut(), storage)?;
    wanted.prepare(open.open_object_mut())?;
    ladder.apply(open.open_object_mut())?;
    drop(kernel); // its types are some megabytes, which libbpf now needs for its own copy
    let skel = object::load(open, args.shared.verbose)?;
    if args.shared.check {
        return Ok(ExitCode::SUCCESS);
    }
    wanted.fill(skel.object())?;
    let links = ladder.attach(skel.object())?;
    object::begin(skel.object())?;

    let tick = Ticker::new(&args.every, signals);
    if let Some(child) = &mut child {
        child.release()?;
    }
    args.shared.ready("opensnoop", &ladder)?;
    let mut run = Run { args, globs, out: Out::new("opensnoop", &args.shared), tick, child, events: 0 };
    run.trace(&skel)?;
    let seconds = run.tick.length().as_secs_f64();
    drop(links);
    let coverage = Coverage::read(skel.object())?;
    let in_flight = maps::find(skel.object(), "in_flight")?.keys().count();
    if in_flight > 0 {
        eprintln!("opensnoop: {in_flight} opens through io_uring were submitted, but not seen to complete");
    }
    if run.events == 0 {
        args.nothing_seen();
    }
    let end = End {
        seconds,
        events: run.events,
        what: "opens",
        coverage: &coverage,
        ladder: &ladder,
        more: vec![("in_flight", in_flight.into())],
    };
    let code = run.out.finish(&end)?;
    match run.child {
        Some(child) => child.end(run.tick.forward, code),
        None => Ok(code),
    }
}

// SAFETY: integers without padding, the same as `common::filter::Raw`.
unsafe impl plain::Plain for bpf::types::filter {}

struct Run<'a> {
    args: &'a Args,
    globs: Option<Globs>,
    out: Out,
    tick: Ticker,
    child: Option<Child>,
    events: u64,
}

impl Run<'_> {
    fn trace(&mut self, skel: &bpf::OpensnoopSkel<'_>) -> Result<()> {
        let args = self.args;
        let mut events = Events::new(&skel.maps.ring)?;
        let mut summary = args.summary.map(Summary::new);
        let mut open = Open::default();
        open.absolute = args.full_path;
        let columns = if args.shared.json { columns::in_json(args) } else { columns::in_text(args) };
        let most = args.max_events.unwrap_or(u64::MAX);
        if summary.is_none() {
            self.out.header(&columns)?;
            self.out.flush()?;
        }
        loop {
            let mut wake = events.wait(&mut self.tick, self.child.as_ref())?;
            let last = matches!(wake, Wake::Part { last: true, .. });
            if last {
                object::end(skel.object())?;
            }
            self.out.clock.adjust();
            events.drain(last, |bytes| {
                open.fill(bytes)?;
                let other = self.globs.as_ref().is_some_and(|globs| !globs.match_open(&open));
                if other || self.events == most {
                    return Ok(());
                }
                self.events += 1;
                if let Some(summary) = &mut summary {
                    summary.add(&open);
                    return Ok(());
                }
                if args.timestamp {
                    open.time = self.out.clock.local(open.at());
                }
                self.out.row(open.at(), &columns, &open)
            })?;
            if self.events == most && !last {
                wake = self.tick.end();
            }
            let Wake::Part { last, .. } = wake else {
                self.out.flush()?;
                continue;
            };
            if let Some(summary) = &mut summary {
                summary.report(&mut self.out, args.timestamp)?;
            }
            self.out.flush()?;
            if last {
                return Ok(());
            }
        }
    }
}
