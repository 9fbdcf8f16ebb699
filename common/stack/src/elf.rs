//! Names from ELF files and their debug information, by blazesym.
//!
//! File by file, not by blazesym's source for processes: there one file that cannot be read costs the names
//! of all others, and the files of a process that has exited are looked for by their paths, which may lead
//! to other files by then, or in a container's case from the start.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blazesym::helper::{ElfResolver, read_elf_build_id};
use blazesym::symbolize::source::Elf;
use blazesym::symbolize::{
    self, CodeInfo, Input, Reason, Sym, Symbolized, Symbolizer, TranslateFileOffset as _,
};

use crate::demangle::demangle;
use crate::files::Source;
use crate::frame::{Frame, Inlined, Place, Space};

/// What an offset into a file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    /// From the function's start.
    pub offset: u64,
    pub place: Option<Place>,
    pub inlined: Vec<Inlined>,
}

impl Found {
    /// `before`: the bytes from where it was looked up to the frame's address.
    pub fn frame(self, space: Space, module: Option<Arc<str>>, before: u64) -> Frame {
        let Found { name, offset, place, inlined } = self;
        Frame { space, name: Some(name), module, offset: offset + before, place, inlined }
    }
}

pub struct Elfs {
    lines: bool,
    symbolizer: Symbolizer,
    /// Files opened: blazesym keeps a descriptor and a mapping of each.
    opened: usize,
    limit: usize,
}

impl Elfs {
    /// Has at most about `limit` files open.
    pub fn new(lines: bool, limit: usize) -> Elfs {
        Elfs { lines, symbolizer: symbolizer(lines), opened: 0, limit }
    }

    /// Names for offsets into a file, in their order.
    pub fn find(&mut self, source: &Source, offsets: &[u64]) -> Vec<Option<Found>> {
        let Some(path) = source.path() else {
            return vec![None; offsets.len()];
        };
        if self.opened >= self.limit {
            self.symbolizer = symbolizer(self.lines);
            self.opened = 0;
        }
        self.opened += 1;
        let (mut found, stripped) = self.ask(path, self.lines, Input::FileOffset(offsets));
        if stripped && found.iter().any(Option::is_none) {
            self.opened += 1;
            let more = match separate(path, &source.root) {
                Some(debug) => self.ask_separate(path, &debug, offsets),
                // Perhaps there is a link to debug information.
                None if !self.lines => self.ask(path, true, Input::FileOffset(offsets)).0,
                None => Vec::new(),
            };
            for (slot, more) in found.iter_mut().zip(more) {
                *slot = slot.take().or(more);
            }
        }
        found
    }

    /// In debug information that was split off, addresses are the same and offsets are not.
    fn ask_separate(&self, path: &Path, debug: &Path, offsets: &[u64]) -> Vec<Option<Found>> {
        let Ok(elf) = ElfResolver::open_with_debug_dirs(path, [] as [&Path; 0]) else {
            return Vec::new();
        };
        let virt = |offset| elf.file_offset_to_virt_offset(offset).ok().flatten();
        let addresses: Vec<Option<u64>> = offsets.iter().map(|offset| virt(*offset)).collect();
        let known: Vec<u64> = addresses.iter().filter_map(|address| *address).collect();
        let mut found = self.ask(debug, self.lines, Input::VirtOffset(&known)).0.into_iter();
        addresses.into_iter().map(|address| address.and_then(|_| found.next().flatten())).collect()
    }

    /// Also: has the file no symbols but those for dynamic linking? `debug`: with DWARF and debug links.
    fn ask(&self, path: &Path, debug: bool, input: Input<&[u64]>) -> (Vec<Option<Found>>, bool) {
        let source = |debug_syms| symbolize::source::Source::from(Elf { debug_syms, ..Elf::new(path) });
        let answer = self.symbolizer.symbolize(&source(debug), input);
        // Debug information that is broken, or that is of another build, must not cost the symbols.
        let answer =
            if debug { answer.or_else(|_| self.symbolizer.symbolize(&source(false), input)) } else { answer };
        let Ok(answer) = answer else {
            return (vec![None; input.into_inner().len()], false);
        };
        let stripped = answer.iter().any(|one| matches!(one, Symbolized::Unknown(Reason::MissingSyms)));
        (answer.into_iter().map(found).collect(), stripped)
    }
}

pub fn symbolizer(lines: bool) -> Symbolizer {
    let builder = Symbolizer::builder().enable_code_info(lines).enable_inlined_fns(lines);
    builder.enable_demangling(false).build()
}

/// Debug information that was split off and put by the file's build id, here or in the process's root.
fn separate(path: &Path, root: &Path) -> Option<PathBuf> {
    let id = read_elf_build_id(path).ok().flatten()?;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (directory, rest) = hex.split_at_checked(2)?;
    let below = format!("usr/lib/debug/.build-id/{directory}/{rest}.debug");
    let candidates = [Path::new("/").join(&below), root.join(&below)];
    candidates.into_iter().find(|debug| {
        debug.is_file() && read_elf_build_id(debug).is_ok_and(|other| other.as_deref() == Some(&id[..]))
    })
}

/// A symbol without a name is none.
pub fn found(one: Symbolized<'_>) -> Option<Found> {
    let Sym { name, offset, code_info, inlined, .. } = one.into_sym().filter(|sym| !sym.name.is_empty())?;
    // blazesym gives the line of the address to the function, and to what was inlined there the line of the
    // call to it; the frames of a stack each have the line where that frame is.
    Some(Found {
        name: demangled(name),
        offset: offset as u64,
        place: code_info.as_deref().map(place),
        inlined: inlined
            .iter()
            .rev()
            .map(|inlined| Inlined {
                name: demangled(inlined.name.clone()),
                place: inlined.code_info.as_ref().map(place),
            })
            .collect(),
    })
}

fn demangled(name: Cow<'_, str>) -> String {
    demangle(&name).unwrap_or_else(|| name.into_owned())
}

fn place(info: &CodeInfo<'_>) -> Place {
    Place { file: info.to_path().to_string_lossy().into_owned(), line: info.line.unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps;

    /// A function's file, and its offset there.
    fn place_of(address: u64) -> (Source, u64) {
        let bytes = std::fs::read("/proc/self/maps").unwrap();
        let line = maps::parse(&bytes).find(|line| (line.start..line.end).contains(&address)).unwrap();
        let path = PathBuf::from(String::from_utf8_lossy(line.path).into_owned());
        (Source::fixed(path), address - line.start + line.offset)
    }

    #[test]
    fn a_limit_of_open_files_costs_no_names() {
        let ours = place_of(place_of as fn(u64) -> (Source, u64) as usize as u64);
        let libc = place_of(libc::getpid as unsafe extern "C" fn() -> i32 as usize as u64);
        let mut elfs = Elfs::new(false, 1);
        for _ in 0..3 {
            let mut name =
                |(source, offset): &(Source, u64)| elfs.find(source, &[*offset]).remove(0).unwrap().name;
            assert!(name(&ours).ends_with("elf::tests::place_of"));
            assert!(name(&libc).contains("getpid"));
        }
    }
}
