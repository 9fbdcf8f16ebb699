//! The processes of a run and what they have mapped, kept for when they have exited.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;

use common::proc::threads;

use crate::files::{FileId, Files};
use crate::jit;
use crate::maps;

/// What backs a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    File(FileId),
    Vdso,
    /// `[anon]`, `[heap]`, `[anon:v8/code]`.
    Memory(Rc<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    end: u64,
    pub exec: bool,
    pub offset: u64,
    pub backing: Backing,
}

/// What a process had mapped at one time, by address.
#[derive(Default)]
struct Image {
    mappings: Vec<Mapping>,
    hash: u64,
}

#[derive(Default)]
pub struct Process {
    /// Oldest first: it may have called exec or unloaded a library between two looks.
    images: Vec<Image>,
    /// Opened while it lived.
    pub perf_map: Option<File>,
}

impl Process {
    /// The mapping that holds an address, in the newest image that has it.
    pub fn find(&self, address: u64) -> Option<&Mapping> {
        self.images.iter().rev().find_map(|image| {
            let after = image.mappings.partition_point(|mapping| mapping.start <= address);
            image.mappings[..after].last().filter(|mapping| address < mapping.end)
        })
    }

    fn add(&mut self, image: Image) {
        if self.images.last().is_some_and(|last| last.hash == image.hash) {
            return;
        }
        self.images.push(image);
        if self.images.len() > IMAGES {
            self.images.remove(1); // the first and the last ones say most
        }
    }
}

/// Images kept of one process.
const IMAGES: usize = 3;
/// Processes kept: of about 2 KiB each.
const PROCESSES: usize = 32_768;
/// Perf maps held open.
const PERF_MAPS: usize = 64;

#[derive(Default)]
pub struct Processes {
    known: HashMap<u32, Process>,
    /// In the order they were first seen.
    order: VecDeque<u32>,
    perf_maps: usize,
}

impl Processes {
    pub fn is_known(&self, tgid: u32) -> bool {
        self.known.contains_key(&tgid)
    }

    /// Looks at a process, again if it is known; one that has exited stays what it was.
    pub fn look(&mut self, tgid: u32, files: &mut Files) -> &Process {
        if !self.known.contains_key(&tgid) {
            self.make_room();
            self.order.push_back(tgid);
        }
        let process = self.known.entry(tgid).or_default();
        if let Some((tid, bytes)) = maps_of(tgid) {
            let image = read(tid, &bytes, files);
            let makes_code = image.mappings.iter().any(|mapping| mapping.exec && has_no_elf(mapping, files));
            process.add(image);
            if makes_code && process.perf_map.is_none() && self.perf_maps < PERF_MAPS {
                process.perf_map = jit::open(tgid);
                self.perf_maps += usize::from(process.perf_map.is_some());
            }
        }
        process
    }

    fn make_room(&mut self) {
        if self.order.len() < PROCESSES {
            return;
        }
        let oldest = self.order.pop_front().and_then(|tgid| self.known.remove(&tgid));
        self.perf_maps -= usize::from(oldest.is_some_and(|process| process.perf_map.is_some()));
    }
}

/// Code that came from a compiler at run time: in memory, or in a file in memory that is mapped twice.
fn has_no_elf(mapping: &Mapping, files: &Files) -> bool {
    match &mapping.backing {
        Backing::File(id) => jit::is_memory(&files.name(*id)),
        Backing::Memory(_) => true,
        Backing::Vdso => false,
    }
}

/// A kernel thread has nothing mapped, as has a process on its way out. So has a first thread that has
/// ended before the others: then one of those says it.
fn maps_of(tgid: u32) -> Option<(u32, Vec<u8>)> {
    let maps = |tid: u32| {
        let bytes = fs::read(format!("/proc/{tid}/maps")).ok()?;
        (!bytes.is_empty()).then_some((tid, bytes))
    };
    maps(tgid).or_else(|| threads(tgid).ok()?.into_iter().take(THREADS).find_map(maps))
}

/// Threads asked.
const THREADS: usize = 8;

fn read(tgid: u32, bytes: &[u8], files: &mut Files) -> Image {
    let mut hasher = DefaultHasher::new();
    let mut mappings = Vec::new();
    for line in maps::parse(bytes) {
        let backing = match line.path {
            [b'/', ..] => Backing::File(files.note(tgid, &line)),
            b"[vdso]" => Backing::Vdso,
            // Memory that holds no code has no name worth its space.
            [] if !line.exec => continue,
            [] => Backing::Memory(Rc::from("[anon]")),
            [b'[', ..] => Backing::Memory(Rc::from(String::from_utf8_lossy(line.path))),
            other => Backing::Memory(Rc::from(format!("[{}]", String::from_utf8_lossy(other)))),
        };
        (line.start, line.end, line.offset, line.path).hash(&mut hasher);
        let (start, end, exec, offset) = (line.start, line.end, line.exec, line.offset);
        mappings.push(Mapping { start, end, exec, offset, backing });
    }
    Image { mappings, hash: hasher.finish() }
}
