//! The processes of a run and what they have mapped, kept for when they have exited.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use common::proc::threads;

use crate::files::FileId;
use crate::jit;
use crate::maps::{self, Line};

/// What backs a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    File(FileId),
    Vdso,
    /// `[anon]`, `[heap]`, `[anon:v8/code]`.
    Memory(Arc<str>),
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
pub struct Image {
    mappings: Vec<Mapping>,
    hash: u64,
}

#[derive(Default)]
pub struct Process {
    /// Oldest first: it may have called exec or unloaded a library between two looks.
    images: Vec<Image>,
    /// Opened while it lived.
    pub perf_map: Option<Arc<File>>,
    /// The last look that was answered.
    pub answered: u64,
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
pub const PROCESSES: usize = 32_768;
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
    pub fn get(&self, tgid: u32) -> Option<&Process> {
        self.known.get(&tgid)
    }

    /// Does the process want its perf map opened?
    pub fn wants_perf_map(&self, tgid: u32) -> bool {
        self.perf_maps < PERF_MAPS && self.get(tgid).is_none_or(|process| process.perf_map.is_none())
    }

    /// A look is answered. Nothing mapped: it has exited, and stays what it was.
    pub fn answer(&mut self, tgid: u32, look: u64, image: Option<Image>, perf_map: Option<File>) {
        if !self.known.contains_key(&tgid) {
            self.make_room();
            self.order.push_back(tgid);
        }
        let process = self.known.entry(tgid).or_default();
        if let Some(image) = image {
            process.add(image);
        }
        if let Some(file) = perf_map.filter(|_| process.perf_map.is_none()) {
            process.perf_map = Some(Arc::new(file));
            self.perf_maps += 1;
        }
        process.answered = process.answered.max(look);
    }

    fn make_room(&mut self) {
        if self.order.len() < PROCESSES {
            return;
        }
        let oldest = self.order.pop_front().and_then(|tgid| self.known.remove(&tgid));
        self.perf_maps -= usize::from(oldest.is_some_and(|process| process.perf_map.is_some()));
    }
}

/// A thread of the process, and its maps. A kernel thread has nothing mapped, as has a process on its way
/// out. So has a first thread that has ended before the others: then one of those says it.
pub fn maps_of(tgid: u32) -> Option<(u32, Vec<u8>)> {
    let maps = |tid: u32| {
        let bytes = fs::read(format!("/proc/{tid}/maps")).ok()?;
        (!bytes.is_empty()).then_some((tid, bytes))
    };
    maps(tgid).or_else(|| threads(tgid).ok()?.into_iter().take(THREADS).find_map(maps))
}

/// Threads asked.
const THREADS: usize = 8;

/// Memory whose code came from a compiler at run time, as far as maps can say.
pub fn is_generated(line: &Line<'_>) -> bool {
    let is_elf = line.path.starts_with(b"/") && !jit::is_memory(&String::from_utf8_lossy(line.path));
    line.exec && !is_elf && line.path != b"[vdso]" && line.path != b"[vsyscall]"
}

/// `file`: the file of a mapping whose path says that it has one.
pub fn image(bytes: &[u8], mut file: impl FnMut(&Line<'_>) -> FileId) -> Image {
    let mut hasher = DefaultHasher::new();
    let mut mappings = Vec::new();
    for line in maps::parse(bytes) {
        let backing = match line.path {
            [b'/', ..] => Backing::File(file(&line)),
            b"[vdso]" => Backing::Vdso,
            // Memory that holds no code has no name worth its space.
            [] if !line.exec => continue,
            [] => Backing::Memory(Arc::from("[anon]")),
            [b'[', ..] => Backing::Memory(Arc::from(String::from_utf8_lossy(line.path))),
            other => Backing::Memory(Arc::from(format!("[{}]", String::from_utf8_lossy(other)))),
        };
        (line.start, line.end, line.offset, line.path).hash(&mut hasher);
        let (start, end, exec, offset) = (line.start, line.end, line.exec, line.offset);
        mappings.push(Mapping { start, end, exec, offset, backing });
    }
    Image { mappings, hash: hasher.finish() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(processes: &mut Processes, tgid: u32, maps: Option<&str>) {
        let image = maps.map(|maps| image(maps.as_bytes(), |_| 7));
        processes.answer(tgid, 1, image, None);
    }

    #[test]
    fn an_address_is_looked_for_in_the_newest_image_first() {
        let mut processes = Processes::default();
        answer(&mut processes, 1, Some("1000-2000 r-xp 0 00:01 5 /a\n9000-a000 r-xp 0 00:01 6 /gone\n"));
        answer(&mut processes, 1, Some("1000-1800 r-xp 500 00:01 5 /b\n"));
        answer(&mut processes, 1, None);
        let offset = |address| processes.get(1).unwrap().find(address).map(|mapping| mapping.offset);
        assert_eq!(offset(0x1000), Some(0x500));
        assert_eq!(offset(0x1900), Some(0));
        assert_eq!(offset(0x9fff), Some(0));
        assert_eq!(offset(0xa000), None);
        assert_eq!(offset(0xfff), None);
    }

    #[test]
    fn the_oldest_process_gives_way() {
        let mut processes = Processes::default();
        for tgid in 0..=PROCESSES as u32 {
            answer(&mut processes, tgid, None);
        }
        assert!(processes.get(0).is_none() && processes.get(1).is_some());
        assert!(processes.get(PROCESSES as u32).is_some());
    }

    #[test]
    fn code_of_no_file_is_generated() {
        let generated = |line: &str| maps::parse(line.as_bytes()).all(|line| is_generated(&line));
        assert!(generated(
            "1000-2000 r-xp 0 00:00 0 \n1000-2000 r-xp 0 00:01 9 /memfd:doublemapper (deleted)"
        ));
        assert!(generated("1000-2000 r-xp 0 00:00 0  [anon:v8]"));
        for no in
            ["r-xp 0 00:01 5 /a", "rw-p 0 00:00 0 ", "r-xp 0 00:00 0 [vdso]", "--xp 0 00:00 0 [vsyscall]"]
        {
            assert!(!generated(&format!("1000-2000 {no}")), "{no}");
        }
    }
}
