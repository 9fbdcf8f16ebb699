//! Perf maps: `/tmp/perf-PID.map`, in which a JIT compiler says what it put where.
//!
//! The file is the traced user's, in a directory that anyone may write to, and we are root: it is opened
//! inside the process's own root directory, must be a regular file that is not a link, and must belong to
//! the process's user or to root.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Is this the name of a file in memory, as .NET maps its code? No ELF file, though it has a path.
pub fn is_memory(name: &str) -> bool {
    ["/memfd:", "/dev/zero", "/dev/shm/", "/SYSV"].iter().any(|start| name.starts_with(start))
}

/// The perf map of a process that lives.
pub fn open(tgid: u32) -> Option<File> {
    let status = fs::read(format!("/proc/{tgid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    // The process names the file by the number that it sees itself: the last one, in its own namespace.
    let inner = field("NStgid:").and_then(|ids| ids.split_whitespace().last()).unwrap_or_default();
    let inner = inner.parse().unwrap_or(tgid);
    let file = open_in(Path::new(&format!("/proc/{tgid}/root")), &format!("tmp/perf-{inner}.map"))?;
    let meta = file.metadata().ok()?;
    let uids = field("Uid:")?;
    let owners = uids.split_whitespace().filter_map(|uid| uid.parse().ok()).chain([0]);
    (meta.is_file() && owners.into_iter().any(|uid: u32| uid == meta.uid())).then_some(file)
}

fn open_in(root: &Path, path: &str) -> Option<File> {
    // A pipe must not hold us up.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let top = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(root).ok()?;
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    match openat2(top.as_fd(), path, OpenHow::new().flags(flags).resolve(resolve)) {
        Ok(fd) => Some(File::from(fd)),
        // Before Linux 5.6, or behind a filter that does not know it.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            File::options().read(true).custom_flags(flags.bits()).open(root.join(path)).ok()
        }
        Err(_) => None,
    }
}

/// What a perf map says by now.
pub fn read(file: &File) -> PerfMap {
    let mut bytes = Vec::new();
    let mut part = vec![0; 1 << 16];
    // By position: the file is read again at the next report.
    while bytes.len() < LARGEST {
        match file.read_at(&mut part, bytes.len() as u64) {
            Ok(0) | Err(_) => break,
            Ok(length) => bytes.extend_from_slice(&part[..length]),
        }
    }
    PerfMap::parse(&bytes)
}

/// More than any JIT compiler writes.
const LARGEST: usize = 256 << 20;

/// The functions of a perf map.
#[derive(Debug, Default)]
pub struct PerfMap {
    /// By start, then by their place in the file.
    functions: Vec<Function>,
    /// The longest function: how far back of an address a start can be.
    longest: u64,
}

#[derive(Debug)]
struct Function {
    start: u64,
    length: u64,
    /// The line: memory is used again, and what was written last is what is there.
    line: usize,
    name: String,
}

impl PerfMap {
    /// Lines that are not understood are left out, as is a last one that is still being written.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> PerfMap {
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |last| last + 1);
        let lines = bytes[..whole].split(|b| *b == b'\n').enumerate();
        let mut functions: Vec<_> = lines.filter_map(|(number, line)| parse_line(number, line)).collect();
        functions.sort_by_key(|function| (function.start, function.line));
        let longest = functions.iter().map(|function| function.length).max().unwrap_or(0);
        PerfMap { functions, longest }
    }

    /// The function at an address, and how far into it that is.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<(&str, u64)> {
        let end = self.functions.partition_point(|function| function.start <= address);
        let near = self.functions[..end].iter().rev();
        let near = near.take_while(|function| address - function.start <= self.longest);
        // Of those that hold it, the one written last; few hold it, and few starts are near.
        let holding = near.take(LOOK_BACK).filter(|function| address - function.start < function.length);
        let found = holding.max_by_key(|function| function.line)?;
        Some((&found.name, address - found.start))
    }
}

/// Functions looked at for one address: a file can say that everything overlaps.
const LOOK_BACK: usize = 256;

/// `7fbf1fc21000 b py::_find_and_load:<frozen importlib._bootstrap>`: start and length in hexadecimal,
/// with or without `0x`; the rest is the name.
fn parse_line(number: usize, line: &[u8]) -> Option<Function> {
    let mut words = line.splitn(3, |b| *b == b' ');
    let start = hex(words.next()?)?;
    let length = hex(words.next()?)?.max(1);
    let name = words.next()?.trim_ascii();
    let name = String::from_utf8_lossy(name).into_owned();
    (!name.is_empty()).then_some(Function { start, length, line: number, name })
}

fn hex(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    u64::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_found_by_any_address_in_it() {
        let map = PerfMap::parse(b"1000 10 one\n0x1010 20 JS:*two /a b.js:1:15\n");
        assert_eq!(map.find(0xfff), None);
        assert_eq!(map.find(0x1000), Some(("one", 0)));
        assert_eq!(map.find(0x100f), Some(("one", 15)));
        assert_eq!(map.find(0x102f), Some(("JS:*two /a b.js:1:15", 31)));
        assert_eq!(map.find(0x1030), None);
    }

    #[test]
    fn memory_that_was_used_again_has_its_last_name() {
        let map = PerfMap::parse(b"1000 100 old\n1020 10 new\n1000 8 newest\n");
        assert_eq!(map.find(0x1004), Some(("newest", 4)));
        assert_eq!(map.find(0x1010), Some(("old", 0x10)));
        assert_eq!(map.find(0x1028), Some(("new", 8)));
        assert_eq!(map.find(0x1040), Some(("old", 0x40)));
    }

    #[test]
    fn one_bad_line_does_not_cost_the_others() {
        let map = PerfMap::parse(b"1000 10 one\nnot a line\n\xff\xfe 1 x\n2000 10 \xffname\n3000 10 unfinis");
        assert_eq!(map.find(0x1000), Some(("one", 0)));
        assert_eq!(map.find(0x2000), Some(("\u{fffd}name", 0)));
        assert_eq!(map.find(0x3000), None);
    }
}
