//! Ways to observe a hook: which are there, which one to take, and why not the others.
//!
//! A tool lists its hooks; a hook lists its ways, best first; a way is a requirement and the programs
//! that stand or fall together. `docs/ARCHITECTURE.md` has the reasons.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io;

use anyhow::{Context as _, Result};
use libbpf_rs::{Iter, Link, Object, OpenObject};

use crate::exit::{Kind, fault};
use crate::kernel::Kernel;
use crate::tracefs;

/// Something to observe.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// As in `--check` and the end record: "run queue waits".
    pub what: &'static str,
    /// Without it the tool still runs and says what it does not see.
    pub optional: bool,
    /// Best first.
    pub ways: &'static [Way],
}

/// One way to observe a hook.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub via: Via,
    pub progs: &'static [&'static str],
    /// Beside the tracepoint itself.
    pub needs: &'static [Need],
    /// What this way cannot see, if anything; for `--check`.
    pub blind: &'static str,
}

/// The kind of program, and the tracepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A typed raw tracepoint.
    TpBtf(&'static str),
    /// An untyped raw tracepoint.
    RawTp(&'static str),
    /// An iterator, over `task` for one.
    Iter(&'static str),
    /// One that may sleep, and so read the memory of other processes.
    SleepableIter(&'static str),
    /// The entry of a function of the kernel.
    Fentry(&'static str),
    /// A classic tracepoint: its category and name.
    Tracepoint(&'static str, &'static str),
    /// No program: the tool reads /proc.
    Proc,
}

/// What else a way needs of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A BPF helper, by the end of its name in `enum bpf_func_id`.
    Helper(&'static str),
    /// A tracepoint, with one of these numbers of arguments: its shape.
    Args(&'static str, &'static [usize]),
    /// A member of a struct.
    Member(&'static str, &'static str),
    /// Atomic compare-and-exchange in BPF.
    Cmpxchg,
    /// A ring buffer that can be written to with the run queue locked: see [`Kernel::has_ring_anywhere`].
    RingAnywhere,
    /// The kernel's own BTF, as iterators do: see [`Kernel::has_own_types`].
    OwnTypes,
    /// Programs at raw tracepoints can be preempted: see [`Kernel::preempts_tracepoints`].
    Preempted,
}

impl Need {
    /// For what only some runs of a tool do.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] if this kernel lacks it.
    pub fn require(self, what: &str, kernel: &Kernel) -> Result<()> {
        self.check(kernel).map_err(|why| {
            fault(Kind::Unsupported, format!("{what} cannot be observed on this kernel: {why}"))
        })
    }

    fn check(self, kernel: &Kernel) -> std::result::Result<(), String> {
        match self {
            Need::Helper(name) if !kernel.has_helper(name) => {
                Err(format!("this kernel has no BPF helper {name}"))
            }
            Need::Args(tracepoint, shapes) => match kernel.tracepoint_args(tracepoint) {
                None => Err(format!("this kernel has no tracepoint {tracepoint}")),
                Some(args) if !shapes.contains(&args) => {
                    Err(format!("the tracepoint {tracepoint} has another shape here ({args} arguments)"))
                }
                Some(_) => Ok(()),
            },
            Need::Member(of, member) if !kernel.has_member(of, member) => {
                Err(format!("struct {of} has no {member} here"))
            }
            Need::Preempted if !kernel.preempts_tracepoints() => {
                Err("only for kernels that preempt programs at raw tracepoints".to_owned())
            }
            Need::OwnTypes if !kernel.has_own_types() => {
                Err("iterators need the kernel's own BTF, not a file (--btf)".to_owned())
            }
            Need::Cmpxchg if !kernel.has_cmpxchg() => {
                Err("this kernel's BPF has no compare-and-exchange".to_owned())
            }
            Need::RingAnywhere if !kernel.has_ring_anywhere() => {
                Err("writing to a BPF ring buffer may sleep on this real-time kernel".to_owned())
            }
            Need::Helper(_)
            | Need::Member(..)
            | Need::OwnTypes
            | Need::Cmpxchg
            | Need::RingAnywhere
            | Need::Preempted => Ok(()),
        }
    }
}

impl Via {
    /// The word for `--probe` and the end record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Via::TpBtf(_) => "tp_btf",
            Via::RawTp(_) => "raw_tp",
            Via::Iter(_) => "iter",
            Via::SleepableIter(_) => "iter.s",
            Via::Fentry(_) => "fentry",
            Via::Tracepoint(..) => "tracepoint",
            Via::Proc => "proc",
        }
    }
}

impl Way {
    fn check(&self, kernel: &Kernel) -> std::result::Result<(), String> {
        self.needs.iter().try_for_each(|need| need.check(kernel))?;
        match self.via {
            Via::TpBtf(tp) => kernel.try_tp_btf(tp),
            Via::RawTp(tp) => kernel.try_raw_tp(tp),
            Via::Iter(over) => kernel.try_iter(over, false),
            Via::SleepableIter(over) => kernel.try_iter(over, true),
            Via::Fentry(function) => kernel.try_fentry(function),
            Via::Tracepoint(category, name) => tracefs::can_find(category, name),
            Via::Proc => kernel.try_proc(),
        }
    }
}

/// # Errors
/// [`Kind::Usage`]: no hook has a way of the name that `--probe` asks for.
pub fn check_probe(hooks: &[Hook], probe: Option<&str>) -> Result<()> {
    let mut names: Vec<&str> = hooks.iter().flat_map(|hook| hook.ways).map(|way| way.via.name()).collect();
    match probe {
        Some(probe) if !names.contains(&probe) => {
            names.sort_unstable();
            names.dedup();
            Err(fault(Kind::Usage, format!("--probe {probe}: there are {}", names.join(", "))))
        }
        _ => Ok(()),
    }
}

/// The verdict on one way.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Chosen,
    /// It would do, but a better one was found.
    Spare,
    Refused(String),
    /// `--probe` asked for another.
    Passed,
}

/// Every hook with the verdict on each of its ways.
pub struct Ladder {
    rungs: Vec<(Hook, Vec<Standing>)>,
    /// Programs of hooks that this run does not need.
    unused: Vec<&'static str>,
}

impl Ladder {
    /// Looks at each hook that this run needs (`wanted`). `probe` forces ways of that name.
    #[must_use]
    pub fn climb(
        kernel: &Kernel,
        hooks: &[Hook],
        probe: Option<&str>,
        wanted: impl Fn(&Hook) -> bool,
    ) -> Ladder {
        let (needed, idle): (Vec<&Hook>, Vec<&Hook>) = hooks.iter().partition(|hook| wanted(hook));
        let rungs = needed.into_iter().map(|hook| (*hook, judge(hook.ways, probe, |way| way.check(kernel))));
        Ladder {
            rungs: rungs.collect(),
            unused: idle
                .iter()
                .flat_map(|hook| hook.ways)
                .flat_map(|way| way.progs.iter().copied())
                .collect(),
        }
    }

    /// For `--check`: every way, its verdict, and what the chosen one does not see.
    #[must_use]
    pub fn report(&self) -> String {
        let mut out = String::new();
        for (hook, standings) in &self.rungs {
            let optional = if hook.optional { " (optional)" } else { "" };
            let _ = writeln!(out, "{}{optional}", hook.what);
            for (way, standing) in hook.ways.iter().zip(standings) {
                let word = match standing {
                    Standing::Chosen => "chosen".to_owned(),
                    Standing::Spare => "possible".to_owned(),
                    Standing::Passed => "not asked for".to_owned(),
                    Standing::Refused(why) => format!("refused: {why}"),
                };
                let _ = writeln!(out, "  {:<10} {word}", way.via.name());
                if *standing == Standing::Chosen && !way.blind.is_empty() {
                    let _ = writeln!(out, "             does not see: {}", way.blind);
                }
            }
            if !standings.contains(&Standing::Chosen) {
                let _ = writeln!(out, "  not covered");
            }
        }
        out
    }

    /// Hook and way, for the end record. A hook that is not covered says "none".
    #[must_use]
    pub fn used(&self) -> Vec<(&'static str, &'static str)> {
        let name = |hook: &Hook, standings: &[Standing]| {
            chosen(hook, standings).map_or("none", |way| way.via.name())
        };
        self.rungs.iter().map(|(hook, standings)| (hook.what, name(hook, standings))).collect()
    }

    /// Was this hook's first choice of the given name taken?
    #[must_use]
    pub fn via(&self, what: &str) -> Option<Via> {
        let (hook, standings) = self.rungs.iter().find(|(hook, _)| hook.what == what)?;
        chosen(hook, standings).map(|way| way.via)
    }

    /// # Errors
    /// [`Kind::Unsupported`] if a hook that is needed has no way; the message gives each reason.
    pub fn require(&self) -> Result<()> {
        for (hook, standings) in self.rungs.iter().filter(|(hook, _)| !hook.optional) {
            if chosen(hook, standings).is_some() {
                continue;
            }
            let reasons = hook.ways.iter().zip(standings).filter_map(|(way, standing)| match standing {
                Standing::Refused(why) => Some(format!("{}: {why}", way.via.name())),
                _ => None,
            });
            let reasons: Vec<String> = reasons.collect();
            let why = reasons.join("; ");
            return Err(fault(
                Kind::Unsupported,
                format!("{} cannot be observed on this kernel: {why}", hook.what),
            ));
        }
        Ok(())
    }

    /// Turns off every program that the chosen ways do not use.
    ///
    /// # Errors
    /// A needed hook has no way, or the table and the object name different programs.
    pub fn apply(&self, object: &mut OpenObject) -> Result<()> {
        self.require()?;
        let used: HashSet<&str> = self.chosen_progs().collect();
        let ways = self.rungs.iter().flat_map(|(hook, _)| hook.ways);
        let mut listed: HashSet<&str> = ways.flat_map(|way| way.progs.iter().copied()).collect();
        listed.extend(&self.unused);
        for mut prog in object.progs_mut() {
            let name = prog.name().to_string_lossy().into_owned();
            anyhow::ensure!(listed.remove(name.as_str()), "program {name} is in no hook's table");
            prog.set_autoload(used.contains(name.as_str()));
        }
        anyhow::ensure!(listed.is_empty(), "no such programs in the object: {listed:?}");
        Ok(())
    }

    /// Attaches the chosen programs one by one, in the order of the table: what ends a measurement first.
    /// Dropping the links detaches. (`skel.attach()` would leak those it attached before one that fails.)
    ///
    /// # Errors
    /// The kernel refused one; those before it are detached again.
    pub fn attach(&self, object: &Object) -> Result<Links> {
        let mut vias =
            self.rungs.iter().filter_map(|(hook, standings)| chosen(hook, standings)).map(|way| way.via);
        if vias.any(|via| matches!(via, Via::Tracepoint(..))) {
            tracefs::where_libbpf_looks()?;
        }
        let mut links = Vec::new();
        for name in self.chosen_progs() {
            let prog = object.progs_mut().find(|prog| prog.name() == name);
            let prog = prog.with_context(|| format!("program {name} was not loaded"))?;
            let link = prog.attach().with_context(|| format!("the kernel refused to attach {name}"))?;
            links.push((name, link));
        }
        Ok(Links(links))
    }

    fn chosen_progs(&self) -> impl Iterator<Item = &'static str> {
        let ways = self.rungs.iter().filter_map(|(hook, standings)| chosen(hook, standings));
        ways.flat_map(|way| way.progs.iter().copied())
    }
}

/// Programs that are attached, for as long as this lives.
pub struct Links(Vec<(&'static str, Link)>);

impl Links {
    /// Runs the iterator program whose name begins so over all that it iterates over. The way that was
    /// chosen may have none: it then says in its `blind` what that costs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn iterate(&self, program: &str) -> Result<()> {
        let Some((_, link)) = self.0.iter().find(|(name, _)| name.starts_with(program)) else {
            return Ok(());
        };
        let mut iter = Iter::new(link)?;
        io::copy(&mut iter, &mut io::sink()).with_context(|| format!("program {program} was not run"))?;
        Ok(())
    }
}

fn chosen(hook: &Hook, standings: &[Standing]) -> Option<Way> {
    hook.ways.iter().zip(standings).find(|(_, s)| **s == Standing::Chosen).map(|(way, _)| *way)
}

/// The decision itself: the first way that works, unless `probe` names another.
fn judge(
    ways: &[Way],
    probe: Option<&str>,
    check: impl Fn(&Way) -> std::result::Result<(), String>,
) -> Vec<Standing> {
    let mut taken = false;
    // A forced name that this hook does not have leaves the hook as it is.
    let probe = probe.filter(|name| ways.iter().any(|way| way.via.name() == *name));
    ways.iter()
        .map(|way| match check(way) {
            Err(why) => Standing::Refused(why),
            Ok(()) if probe.is_some_and(|name| name != way.via.name()) => Standing::Passed,
            Ok(()) if taken => Standing::Spare,
            Ok(()) => {
                taken = true;
                Standing::Chosen
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAYS: &[Way] = &[
        Way { via: Via::TpBtf("x"), progs: &["x_btf"], needs: &[], blind: "" },
        Way { via: Via::RawTp("x"), progs: &["x_raw"], needs: &[], blind: "" },
    ];

    fn no_btf(way: &Way) -> std::result::Result<(), String> {
        if way.via.name() == "tp_btf" { Err("no".into()) } else { Ok(()) }
    }

    #[test]
    fn the_first_way_that_works_is_taken() {
        assert_eq!(judge(WAYS, None, |_| Ok(())), [Standing::Chosen, Standing::Spare]);
        assert_eq!(judge(WAYS, None, no_btf), [Standing::Refused("no".into()), Standing::Chosen]);
    }

    #[test]
    fn a_forced_way_is_taken_although_a_better_one_works() {
        assert_eq!(judge(WAYS, Some("raw_tp"), |_| Ok(())), [Standing::Passed, Standing::Chosen]);
    }

    #[test]
    fn a_forced_way_that_is_refused_leaves_none() {
        assert_eq!(judge(WAYS, Some("tp_btf"), no_btf), [Standing::Refused("no".into()), Standing::Passed]);
    }
}
