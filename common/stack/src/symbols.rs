//! Names for the addresses of stacks.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use crate::cfi::Rule;
use crate::elf::Found;
use crate::files::{FileId, Source};
use crate::frame::{Frame, Named, Space};
use crate::jit::{self, PerfMap};
use crate::kernel::{self, Address, Kernel, addresses, lookup};
use crate::process::{Backing, Mapping, Process, maps_of};
use crate::progress::Progress;
use crate::reader::Reader;
use crate::search::Search;
use crate::top::{self, Top};
use crate::unwind::{self, Read};
use crate::vdso;

/// What to look for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Source lines and inlined functions, where there is debug information: some 10 times the time.
    pub lines: bool,
}

/// Names for the addresses of stacks. One for a run: what was found once is not looked for again.
///
/// ```no_run
/// # let (tgid, stacks) = (1, vec![vec![0_u64]]);
/// let mut symbols = stack::Symbols::new(stack::Options::default());
/// symbols.note(tgid); // when the process is first seen, and again after an exec
/// // ... in the end, all stacks of a process in one call, each innermost first:
/// let stacks: Vec<&[u64]> = stacks.iter().map(Vec::as_slice).collect();
/// for frames in symbols.user(tgid, &stacks) {
///     println!("{}", frames[0].label());
/// }
/// ```
pub struct Symbols {
    kernel: Kernel,
    reader: Reader,
    /// Looked at again since their stacks were last named.
    fresh: HashSet<u32>,
    search: Search,
    found: HashMap<(FileId, u64, bool), Named>,
    rules: HashMap<(FileId, u64), Option<Rule>>,
    vdso: Option<Source>,
    stop: Option<Box<dyn Fn() -> bool>>,
    stopped: bool,
    progress: Option<Progress>,
}

/// Frames kept for later calls, of some 200 bytes each.
const REMEMBERED: usize = 1_000_000;
/// Offsets looked up at once.
const BATCH: usize = 4096;

impl Symbols {
    #[must_use]
    pub fn new(options: Options) -> Symbols {
        let limit = descriptors();
        Symbols {
            kernel: Kernel::new(options.lines),
            reader: Reader::new(limit, maps_of),
            fresh: HashSet::new(),
            // Of each file it may open three: itself, its debug information, and what that refers to.
            search: Search::new(options.lines, limit / 3),
            found: HashMap::new(),
            rules: HashMap::new(),
            vdso: None,
            stop: None,
            stopped: false,
            progress: None,
        }
    }

    /// Call it when a process is first seen: what it has mapped is read, on another thread, so that its stacks
    /// have names when it has exited. A process that is known costs one look into a table.
    pub fn note(&mut self, tgid: u32) {
        if !self.reader.is_known(tgid) {
            self.note_again(tgid);
        }
    }

    /// Call it when a known process may have changed, most of all after an exec. What it had mapped before
    /// stays known.
    pub fn note_again(&mut self, tgid: u32) {
        self.reader.ask(tgid);
    }

    /// Why kernel frames will have no names, in one line that names the sysctl. Ask once, at the start.
    #[must_use]
    pub fn kernel_hidden(&self) -> Option<String> {
        kernel::hidden()
    }

    /// Asked between files, and every 50 ms while one takes longer: true ends the search for names. What has
    /// none by then is shown as `[module+0xoffset]`.
    pub fn stop_when(&mut self, stop: impl Fn() -> bool + 'static) {
        self.stop = Some(Box::new(stop));
    }

    /// Was the search ended? Then say so.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// The processes that [`Symbols::user`] is about to be called for, one by one: they are looked at once
    /// more meanwhile. And there is a line about the progress on stderr, if that is a terminal and it takes
    /// longer than a second; [`Symbols::done`] takes it away.
    pub fn announce(&mut self, tool: &'static str, tgids: impl IntoIterator<Item = u32>) {
        let mut calls = 0;
        for tgid in tgids {
            self.reader.ask(tgid);
            self.fresh.insert(tgid);
            calls += 1;
        }
        self.progress = Some(Progress::new(tool, calls));
    }

    pub fn done(&mut self) {
        self.progress = None;
    }

    /// Frames of kernel stacks. Each stack begins with the innermost address; the first is that of an
    /// instruction, the others are those that calls return to.
    pub fn kernel(&mut self, stacks: &[&[u64]]) -> Vec<Vec<Named>> {
        self.kernel.frames(stacks)
    }

    /// Frames of all user stacks of a process, as with [`Symbols::kernel`]: one call for each process, for
    /// each file is opened and searched once in it.
    pub fn user(&mut self, tgid: u32, stacks: &[&[u64]]) -> Vec<Vec<Named>> {
        if !self.fresh.remove(&tgid) {
            self.reader.ask(tgid);
        }
        let mut unique: Vec<Address> = addresses(stacks).collect();
        unique.sort_unstable();
        unique.dedup();
        let mut frames: HashMap<Address, Named> = HashMap::with_capacity(unique.len());
        let mut wanted = Wanted::default();
        let Symbols { reader, found, stop, stopped, progress, .. } = self;
        let registry = reader.wait(tgid, &mut go_on(stop.as_deref(), stopped, progress));
        let process = registry.processes.get(tgid);
        for address in unique {
            let at = lookup(address);
            let Some(mapping) = process.and_then(|process| process.find(at)) else {
                frames.insert(address, Rc::new(Frame::unknown(Space::User)));
                continue;
            };
            let offset = at - mapping.start + mapping.offset;
            match &mapping.backing {
                Backing::File(id) => {
                    let name = registry.files.name(*id);
                    if !mapping.exec || jit::is_memory(&name) {
                        wanted.generated.push((address, mapping.clone(), name));
                    } else if let Some(frame) = found.get(&(*id, offset, address.1)) {
                        frames.insert(address, Rc::clone(frame));
                    } else {
                        let within = wanted.files.entry(*id).or_insert_with(|| {
                            let source = registry.files.source(*id);
                            Within { name, source, offsets: Vec::new() }
                        });
                        within.offsets.push((address, offset));
                    }
                }
                Backing::Vdso => wanted.vdso.push((address, offset)),
                Backing::Memory(name) => wanted.generated.push((address, mapping.clone(), Arc::clone(name))),
            }
        }
        let perf_map = process.and_then(|process| process.perf_map.clone());
        drop(registry);

        let Wanted { files, vdso, generated } = wanted;
        if !generated.is_empty() {
            // One that lives needs no descriptor held.
            let map = perf_map.or_else(|| jit::open(tgid).map(Arc::new));
            let map = map.map(|file| jit::read(&file)).unwrap_or_default();
            for (address, mapping, name) in generated {
                frames.insert(address, Rc::new(in_memory(address, &mapping, name, &map)));
            }
        }
        for (id, Within { name, source, offsets }) in files {
            for part in offsets.chunks(BATCH) {
                let found = self.find(source.clone(), part);
                let is_final = found.is_some();
                let mut found = found.unwrap_or_default().into_iter();
                for (address, offset) in part {
                    let frame = Rc::new(frame(found.next().flatten(), &name, *offset, *address));
                    if is_final && self.found.len() < REMEMBERED {
                        self.found.insert((id, *offset, address.1), Rc::clone(&frame));
                    }
                    frames.insert(*address, frame);
                }
            }
        }
        if !vdso.is_empty() {
            let source =
                self.vdso.get_or_insert_with(|| Source::fixed(vdso::path().unwrap_or_default())).clone();
            let mut found = self.find(source, &vdso).unwrap_or_default().into_iter();
            let name = Arc::from("[vdso]");
            for (address, offset) in &vdso {
                frames.insert(*address, Rc::new(frame(found.next().flatten(), &name, *offset, *address)));
            }
        }
        if let Some(progress) = &mut self.progress {
            progress.step();
        }
        let named = |address: Address| Rc::clone(&frames[&address]);
        stacks.iter().map(|stack| addresses(&[stack]).map(named).collect()).collect()
    }

    /// For each top of a user stack the functions that a walk by frame pointers leaves out, as addresses to
    /// return to, innermost first; and whether they reach the frame at the frame pointer.
    pub fn callers(&mut self, tgid: u32, tops: &[Top<'_>]) -> Vec<(Vec<u64>, bool)> {
        self.with_rules(tgid, |_, rule| tops.iter().map(|top| top::callers(*top, &mut *rule)).collect())
            .unwrap_or_else(|| vec![(Vec::new(), false); tops.len()])
    }

    /// The user stack of a thread that stands still, `most` addresses, innermost first, where no more than the
    /// address it is at and its stack pointer are known. The process has to be noted.
    pub fn unwind(&mut self, tgid: u32, regs: (u64, u64), most: usize, read: Read<'_>) -> Vec<u64> {
        self.with_rules(tgid, |process, rule| {
            let is_code = |word: u64| process.find(word).is_some_and(|mapping| mapping.exec);
            unwind::unwind(regs, most, read, rule, is_code)
        })
        .unwrap_or_else(|| vec![regs.0])
    }

    /// Calls `walk` with the process, and with what finds the rule at an address in it. None: it is not known.
    fn with_rules<T>(
        &mut self,
        tgid: u32,
        walk: impl FnOnce(&Process, &mut dyn FnMut(u64) -> Option<Rule>) -> T,
    ) -> Option<T> {
        let Symbols { reader, search, rules, stop, stopped, progress, .. } = self;
        let mut go_on = go_on(stop.as_deref(), stopped, progress);
        let registry = reader.wait(tgid, &mut go_on);
        let process = registry.processes.get(tgid)?;
        let mut rule = |at: u64| {
            let mapping = process.find(at).filter(|mapping| mapping.exec)?;
            let Backing::File(id) = mapping.backing else { return None };
            let offset = at - mapping.start + mapping.offset;
            if let Some(known) = rules.get(&(id, offset)) {
                return *known;
            }
            if !go_on() {
                return None;
            }
            let rule = search.rule(id, registry.files.source(id), offset, &mut go_on);
            if rules.len() < REMEMBERED {
                rules.insert((id, offset), rule);
            }
            rule
        };
        Some(walk(process, &mut rule))
    }

    /// None: the search was ended.
    fn find(&mut self, source: Source, wanted: &[(Address, u64)]) -> Option<Vec<Option<Found>>> {
        let Symbols { search, stop, stopped, progress, .. } = self;
        let mut go_on = go_on(stop.as_deref(), stopped, progress);
        if !go_on() {
            return None;
        }
        search.find(source, wanted.iter().map(|(_, offset)| *offset).collect(), &mut go_on)
    }
}

/// A file, and what is to be found in it.
struct Within {
    name: Arc<str>,
    source: Source,
    offsets: Vec<(Address, u64)>,
}

/// Addresses without a name yet, by what they are in.
#[derive(Default)]
struct Wanted {
    files: HashMap<FileId, Within>,
    vdso: Vec<(Address, u64)>,
    generated: Vec<(Address, Mapping, Arc<str>)>,
}

/// Asked while something is waited for.
fn go_on<'a>(
    stop: Option<&'a dyn Fn() -> bool>,
    stopped: &'a mut bool,
    progress: &'a mut Option<Progress>,
) -> impl FnMut() -> bool + 'a {
    move || {
        if let Some(progress) = progress {
            progress.show();
        }
        *stopped = *stopped || stop.is_some_and(|stop| stop());
        !*stopped
    }
}

fn frame(found: Option<Found>, module: &Arc<str>, offset: u64, address: Address) -> Frame {
    let module = Some(Arc::clone(module));
    let before = address.0 - lookup(address);
    match found {
        Some(found) => found.frame(Space::User, module, before),
        None => Frame { module, offset: offset + before, ..Frame::unknown(Space::User) },
    }
}

/// A frame in memory that no ELF file backs.
fn in_memory(address: Address, mapping: &Mapping, module: Arc<str>, map: &PerfMap) -> Frame {
    let at = lookup(address);
    let before = address.0 - at;
    let space = if mapping.exec { Space::Jit } else { Space::User };
    match map.find(at).filter(|_| mapping.exec) {
        Some((name, offset)) => {
            let name = Some(name.to_owned());
            Frame { name, module: Some(module), offset: offset + before, ..Frame::unknown(space) }
        }
        None => {
            let offset = at - mapping.start + mapping.offset + before;
            Frame { module: Some(module), offset, ..Frame::unknown(space) }
        }
    }
}

/// Descriptors for files that processes have mapped: a quarter of what we may have, and not many. The search
/// has as many.
fn descriptors() -> usize {
    let (soft, _) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap_or((256, 256));
    usize::try_from(soft / 4).unwrap_or(usize::MAX).clamp(16, 512)
}
