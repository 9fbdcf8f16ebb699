//! Names for the addresses of stacks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::elf::{Elfs, Found};
use crate::files::{FileId, Files};
use crate::frame::{Frame, Named, Space};
use crate::jit::{self, PerfMap};
use crate::kernel::{self, Address, Kernel, addresses, lookup};
use crate::process::{Backing, Mapping, Processes};
use crate::progress::Progress;
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
    processes: Processes,
    files: Files,
    elfs: Elfs,
    found: HashMap<(FileId, u64, bool), Named>,
    vdso: Option<PathBuf>,
    stop: Option<Box<dyn Fn() -> bool>>,
    stopped: bool,
    progress: Option<Progress>,
}

/// Offsets looked up at once, between two looks at the stop flag.
const BATCH: usize = 4096;

impl Symbols {
    #[must_use]
    pub fn new(options: Options) -> Symbols {
        let limit = descriptors();
        Symbols {
            kernel: Kernel::new(options.lines),
            processes: Processes::default(),
            files: Files::new(limit),
            elfs: Elfs::new(options.lines, limit),
            found: HashMap::new(),
            vdso: None,
            stop: None,
            stopped: false,
            progress: None,
        }
    }

    /// Call it when a process is first seen: remembers what it has mapped (some 0.1 ms), so that its stacks
    /// have names when it has exited. A process that is known costs one look into a table.
    pub fn note(&mut self, tgid: u32) {
        if !self.processes.is_known(tgid) {
            self.note_again(tgid);
        }
    }

    /// Call it when a known process may have changed, most of all after an exec. What it had mapped before
    /// stays known.
    pub fn note_again(&mut self, tgid: u32) {
        self.processes.look(tgid, &mut self.files);
    }

    /// Why kernel frames will have no names, in one line that names the sysctl. Ask once, at the start.
    #[must_use]
    pub fn kernel_hidden(&self) -> Option<String> {
        kernel::hidden()
    }

    /// Asked between batches: true ends the search for names. What has none by then is shown as
    /// `[module+0xoffset]`.
    pub fn stop_when(&mut self, stop: impl Fn() -> bool + 'static) {
        self.stop = Some(Box::new(stop));
    }

    /// Was the search ended? Then say so.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// The number of calls of [`Symbols::user`] to come, for a line about the progress on stderr, if that is
    /// a terminal and it takes longer than a second. [`Symbols::done`] takes the line away.
    pub fn expect(&mut self, tool: &'static str, calls: usize) {
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
        let process = self.processes.look(tgid, &mut self.files);
        let mut unique: Vec<Address> = addresses(stacks).collect();
        unique.sort_unstable();
        unique.dedup();

        let mut perf_map: Option<PerfMap> = None;
        let mut frames: HashMap<Address, Named> = HashMap::with_capacity(unique.len());
        let mut files: HashMap<FileId, Vec<(Address, u64)>> = HashMap::new();
        let mut vdso = Vec::new();
        for address in unique {
            let at = lookup(address);
            let Some(mapping) = process.find(at) else {
                frames.insert(address, Rc::new(Frame::unknown(Space::User)));
                continue;
            };
            let offset = at - mapping.start + mapping.offset;
            match &mapping.backing {
                Backing::File(id) if mapping.exec && !jit::is_memory(&self.files.name(*id)) => {
                    match self.found.get(&(*id, offset, address.1)) {
                        Some(frame) => drop(frames.insert(address, Rc::clone(frame))),
                        None => files.entry(*id).or_default().push((address, offset)),
                    }
                }
                Backing::Vdso => vdso.push((address, offset)),
                _ => {
                    let map = perf_map.get_or_insert_with(|| match &process.perf_map {
                        Some(file) => jit::read(file),
                        None => jit::open(tgid).map(|file| jit::read(&file)).unwrap_or_default(),
                    });
                    frames.insert(address, Rc::new(generated(address, mapping, map, &self.files)));
                }
            }
        }
        for (id, wanted) in files {
            let name = self.files.name(id);
            let path = self.files.path(id);
            let root = self.files.root(id);
            for part in wanted.chunks(BATCH) {
                self.look_at_the_clock();
                let path = path.as_deref().filter(|_| !self.stopped);
                let found = find(&mut self.elfs, path, &root, part);
                for ((address, offset), found) in part.iter().zip(found) {
                    let frame = Rc::new(frame(found, &name, *offset, *address));
                    if !self.stopped {
                        self.found.insert((id, *offset, address.1), Rc::clone(&frame));
                    }
                    frames.insert(*address, frame);
                }
            }
        }
        if !vdso.is_empty() {
            let path = self.vdso.get_or_insert_with(|| vdso::path().unwrap_or_default());
            let found = find(&mut self.elfs, Some(path), Path::new("/"), &vdso);
            let name = Rc::from("[vdso]");
            for ((address, offset), found) in vdso.iter().zip(found) {
                frames.insert(*address, Rc::new(frame(found, &name, *offset, *address)));
            }
        }
        if let Some(progress) = &mut self.progress {
            progress.step();
        }
        let named = |address: Address| Rc::clone(&frames[&address]);
        stacks.iter().map(|stack| addresses(&[stack]).map(named).collect()).collect()
    }

    fn look_at_the_clock(&mut self) {
        self.stopped = self.stopped || self.stop.as_ref().is_some_and(|stop| stop());
        if let Some(progress) = &mut self.progress {
            progress.show();
        }
    }
}

fn find(elfs: &mut Elfs, path: Option<&Path>, root: &Path, wanted: &[(Address, u64)]) -> Vec<Option<Found>> {
    match path {
        Some(path) => {
            let offsets: Vec<u64> = wanted.iter().map(|(_, offset)| *offset).collect();
            elfs.find(path, root, &offsets)
        }
        None => vec![None; wanted.len()],
    }
}

fn frame(found: Option<Found>, module: &Rc<str>, offset: u64, address: Address) -> Frame {
    let module = Some(Rc::clone(module));
    let before = address.0 - lookup(address);
    match found {
        Some(found) => found.frame(Space::User, module, before),
        None => Frame { module, offset: offset + before, ..Frame::unknown(Space::User) },
    }
}

/// A frame in memory that no ELF file backs.
fn generated(address: Address, mapping: &Mapping, map: &PerfMap, files: &Files) -> Frame {
    let at = lookup(address);
    let before = address.0 - at;
    let module = match &mapping.backing {
        Backing::File(id) => files.name(*id),
        Backing::Vdso => Rc::from("[vdso]"),
        Backing::Memory(name) => Rc::clone(name),
    };
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

/// Descriptors that each of two stores may hold: a quarter of what the process may have, and not many.
fn descriptors() -> usize {
    let (soft, _) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap_or((256, 256));
    usize::try_from(soft / 4).unwrap_or(usize::MAX).clamp(16, 512)
}
