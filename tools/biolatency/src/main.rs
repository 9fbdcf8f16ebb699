//! biolatency: how long block I/O takes, in the kernel's queue and in the device.

use std::mem::MaybeUninit;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::child::Child;
use common::cli::Shared;
use common::coverage::Coverage;
use common::events::Events;
use common::exit::{Kind, fault};
use common::filter::Wanted;
use common::hook::Hook;
use common::out::{End, Out};
use common::start::{Start, Target};
use common::tick::{Ticker, Wake};
use common::{cgroup, cli, clock, maps, object};
use libbpf_rs::skel::{OpenSkel as _, Skel as _, SkelBuilder as _};
use libbpf_rs::{MapCore as _, MapFlags};

use crate::args::{Args, By, Span};
use crate::disks::Disk;
use crate::inflight::InFlight;
use crate::names::Flags;
use crate::report::Report;
use crate::sections::Counted;
use crate::slower::Slow;

mod args;
mod disks;
mod groups;
mod hooks;
mod inflight;
mod names;
mod nothing;
mod report;
mod sections;
mod slower;
mod split;

mod bpf {
    include!(concat!(env!("OUT_DIR"), "/bpf.rs"));
}

/// How often the keyed histograms are emptied, so that none is full.
const LOOK: Duration = Duration::from_millis(250);

fn main() -> ExitCode {
    cli::start(|args: &Args| &args.shared, run)
}

fn run(args: &Args) -> Result<ExitCode> {
    args.check()?;
    let disks = args.disk.iter().map(|disk| disks::resolve(disk)).collect::<Result<Vec<_>>>()?;
    let bio = takes_bios(args, &disks)?;
    let span = args.span(bio);
    let mut kinds = args.kinds();
    // One I/O is a bio at each level, and a request at each of dm multipath: together they would count it twice.
    let levels = disks.len() != 1 && (bio || disks::have_stacked_requests());
    if levels && !kinds.iter().any(|kind| matches!(kind, By::Disk | By::Partition)) {
        kinds.insert(0, By::Disk);
    }
    let is_queued = matches!(span, Span::Total | Span::Split);
    let needed = |hook: &Hook| match hook.what {
        what if what == hooks::BIOS.what || what == hooks::THROTTLED.what => bio,
        what if what == hooks::REQUESTS.what => !bio && !is_queued,
        what if what == hooks::QUEUED.what => !bio && is_queued,
        _ => !bio && args.slower.is_some(),
    };
    let target = Target { wanted: Wanted::default(), cgroups: &args.cgroup, command: &args.command };
    let start = Start::new(&args.shared, hooks::HOOKS, needed, target)?;
    let Start { kernel, ladder, cgroups, signals, mut child, .. } = start;
    let flags = Flags::of(&kernel);
    let ops = flags.mask(&args.op)?;
    groups::check(&kernel, &cgroups, kinds.contains(&By::Cgroup))?;
    // All I/O while the command runs: much of it is not submitted by the command itself.
    let wanted = Wanted { cgroups: cgroups.iter().map(|group| group.id).collect(), ..Wanted::default() };

    let mut place = MaybeUninit::uninit();
    let mut builder = bpf::BiolatencySkelBuilder::default();
    kernel.lend_types(&mut builder.obj_builder)?;
    let mut open = builder.open(&mut place)?;
    let cfg = &mut open.maps.rodata_data.as_deref_mut().context("rodata is not mapped")?.cfg;
    cfg.unit_ns = args.unit().nanos();
    cfg.slower_ns = args.slower.map_or(0, |limit| limit.as_nanos() as u64);
    cfg.ops = ops;
    cfg.span = span as u32;
    cfg.by = kinds.iter().map(|kind| *kind as u32).sum();
    cfg.op_flush = flags.op_number("flush").unwrap_or(u32::MAX);
    cfg.preflush = flags.flag("PREFLUSH");
    cfg.driver_flag = flags.flag("DRV");
    cfg.by_cgroup = u8::from(!wanted.cgroups.is_empty());
    cfg.chain_endio = if bio { hooks::chain_endio() } else { 0 };
    cfg.depth = u8::from(args.inflight);
    hooks::set_places(&kernel, cfg);
    set_ranges(cfg, &disks)?;
    // What this run has no use for need not be large.
    open.maps.filter_tgids.set_max_entries(1)?;
    open.maps.filter_tids.set_max_entries(1)?;
    if args.slower.is_none() {
        open.maps.submitters.set_max_entries(1)?;
    }
    if ladder.via(hooks::THROTTLED.what).is_none() {
        open.maps.held_back.set_max_entries(1)?;
    }
    // Only typed programs keep sections whole: hooks.rs.
    let shared = !kinds.is_empty() && args.slower.is_none() && hooks::is_typed(&ladder);
    open.maps.shared_active.set_autocreate(shared)?;
    open.maps.shared_a.set_autocreate(shared)?;
    open.maps.shared_b.set_autocreate(shared)?;
    if kinds.is_empty() {
        open.maps.sparse_a.set_max_entries(1024)?;
        open.maps.sparse_b.set_max_entries(1024)?;
    }
    wanted.prepare(open.open_object_mut())?;
    ladder.apply(open.open_object_mut())?;
    let skel = object::load(open, args.shared.verbose)?;
    if args.shared.check {
        return Ok(ExitCode::SUCCESS);
    }
    wanted.fill(skel.object())?;
    let counted =
        args.slower.is_none().then(|| Counted::new(&skel.maps, !kinds.is_empty(), shared)).transpose()?;
    let links = ladder.attach(skel.object())?;

    object::begin(skel.object())?;
    begun(&skel)?;
    let tick = Ticker::new(&args.every(), signals);
    if let Some(child) = &mut child {
        child.release()?;
    }
    let shared: Shared = args.shared();
    args.shared.ready("biolatency", &ladder)?;
    let report = Report {
        args,
        kinds,
        span,
        flags: &flags,
        disks: disks::Names::new(),
        cgroups: cgroup::Names::new(),
    };
    let mut run = Run { report, bio, out: Out::new("biolatency", &shared), tick, child, events: 0 };
    match counted {
        Some(counted) => run.histograms(&skel, counted)?,
        None => run.rows(&skel)?,
    }
    let seconds = run.tick.length().as_secs_f64();
    drop(links);
    let in_flight = InFlight::read(&skel, &flags, &disks, bio)?;
    let mut coverage = Coverage::read(skel.object())?;
    coverage.add("unmatched", in_flight.unseen);
    if run.events == 0 {
        eprintln!("biolatency: {}", nothing::why(args, &disks, bio, in_flight.at_end));
    }
    in_flight.say();
    let end = End {
        seconds,
        events: run.events,
        what: if bio { "bios" } else { "requests" },
        coverage: &coverage,
        ladder: &ladder,
        more: in_flight.json(),
    };
    let code = run.out.finish(&end)?;
    match run.child {
        Some(child) => child.end(run.tick.forward, code),
        None => Ok(code),
    }
}

/// Bios if asked for, or if a disk has nothing else.
fn takes_bios(args: &Args, disks: &[Disk]) -> Result<bool> {
    let Some(disk) = disks.iter().find(|disk| disk.takes_bios) else {
        return Ok(args.bio);
    };
    let flag = match args {
        Args { split: true, .. } => "--split",
        Args { queued: true, .. } => "--queued",
        Args { inflight: true, .. } => "--inflight",
        _ if args.bio => return Ok(true),
        _ => {
            eprintln!("biolatency: {} has no requests, so its bios are traced (--bio)", disk.name);
            return Ok(true);
        }
    };
    let below = disk.below.join(", ");
    let cure = if below.is_empty() {
        "leave it out".to_owned()
    } else {
        format!("leave it out, or ask for {below}")
    };
    let what = format!(
        "{flag}: {} has no requests, so its queue and device cannot be told apart: {cure}",
        disk.name
    );
    Err(fault(Kind::Usage, what))
}

fn set_ranges(cfg: &mut bpf::types::blk_cfg, disks: &[Disk]) -> Result<()> {
    if disks.len() > cfg.range.len() {
        return Err(cli::usage(format!("--disk: {} at most", cfg.range.len())));
    }
    cfg.ranges = disks.len() as u32;
    for (range, disk) in cfg.range.iter_mut().zip(disks) {
        range.dev = disk.dev;
        range.first = disk.first;
        range.last = disk.last;
    }
    Ok(())
}

/// Tells the programs when the run began: what was submitted before has no start.
fn begun(skel: &bpf::BiolatencySkel<'_>) -> Result<()> {
    let map = maps::find(skel.object(), ".data.begun")?;
    map.update(&0_u32.to_ne_bytes(), &clock::monotonic().to_ne_bytes(), MapFlags::ANY)
        .context("cannot say when the run began")
}

struct Run<'a> {
    report: Report<'a>,
    bio: bool,
    out: Out,
    tick: Ticker,
    child: Option<Child>,
    events: u64,
}

impl Run<'_> {
    fn histograms(&mut self, skel: &bpf::BiolatencySkel<'_>, mut counted: Counted<'_>) -> Result<()> {
        let keyed = !self.report.kinds.is_empty();
        let look = keyed.then_some(LOOK);
        let meaning = report::meaning(self.report.span, self.bio);
        self.out.text(&format!("Tracing block device I/O ({meaning})... Hit Ctrl-C to end."))?;
        self.out.flush()?;
        loop {
            let wake = self.tick.wait(look, self.child.as_ref())?;
            let Wake::Part { seconds, last } = wake else {
                // A disk may be gone before the report.
                let sections = counted.collect()?;
                self.report.disks.learn(sections.keys().map(|id| id.dev));
                continue;
            };
            if last {
                object::end(skel.object())?;
            }
            let part = counted.part()?;
            self.events += part.values().map(sections::Section::count).sum::<u64>();
            self.report.part(&mut self.out, seconds, part)?;
            self.out.flush()?;
            if last {
                return Ok(());
            }
        }
    }

    fn rows(&mut self, skel: &bpf::BiolatencySkel<'_>) -> Result<()> {
        let mut events = Events::new(&skel.maps.ring)?;
        let columns = slower::columns(self.bio);
        let micros = self.report.args.slower.unwrap_or_default().as_nanos() as f64 / 1000.0;
        let meaning = report::meaning(self.report.span, self.bio);
        self.out.text(&format!(
            "Tracing block device I/O of {micros} us or more ({meaning})... Hit Ctrl-C to end."
        ))?;
        self.out.header(&columns)?;
        self.out.flush()?;
        loop {
            let wake = events.wait(&mut self.tick, self.child.as_ref())?;
            let last = matches!(wake, Wake::Part { last: true, .. });
            if last {
                object::end(skel.object())?;
            }
            self.out.clock.adjust();
            let Report { disks, flags, .. } = &mut self.report;
            events.drain(last, |bytes| {
                let event = plain::from_bytes(bytes).ok().context("an event of another shape")?;
                let event: &bpf::types::blk_event = event;
                disks.learn([event.dev].into_iter());
                let slow = Slow::new(event, self.out.clock.local(event.at), disks, flags);
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
