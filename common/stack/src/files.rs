//! The files that processes have mapped, each once, and how to read them later: when the process has
//! exited, when the file was deleted or replaced, when it is a container's.
//!
//! A descriptor (`O_PATH`) is held for each, so that the very file is there in the end and its inode is not
//! used again meanwhile. There is a limit; beyond it the oldest give way, and only their paths are left.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::identity::Identity;
use crate::maps::Line;

/// Which file.
pub type FileId = u32;

struct Entry {
    /// As the kernel writes it.
    name: Arc<str>,
    path: PathBuf,
    /// Unknown: it could not be opened, and will not be.
    identity: Option<Identity>,
    held: Option<File>,
    /// A process that had it mapped, for its root directory.
    pid: u32,
}

/// Where a file may be found, and how to tell that it is the one.
#[derive(Clone, Debug, Default)]
pub struct Source {
    identity: Option<Identity>,
    candidates: Vec<PathBuf>,
    /// The root directory of a process that mapped it, which may have debug information of its own.
    pub root: PathBuf,
}

impl Source {
    /// Anything that cannot change.
    pub fn fixed(path: PathBuf) -> Source {
        Source { identity: Identity::at(&path), candidates: vec![path], root: PathBuf::from("/") }
    }

    /// A path at which the very file can be opened now. May wait for a file server.
    pub fn path(&self) -> Option<&Path> {
        let identity = self.identity?;
        let mut paths = self.candidates.iter().map(PathBuf::as_path);
        paths.find(|path| Identity::at(path) == Some(identity))
    }
}

/// A file as mappings name it.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    device: Box<[u8]>,
    inode: u64,
    path: Box<[u8]>,
}

impl Key {
    fn of(line: &Line<'_>) -> Key {
        // Deleted or not, it is the same file.
        Key { device: line.device.into(), inode: line.inode, path: path_of(line).into() }
    }
}

/// Which file it is, and a descriptor for it unless there are too many.
pub type Opened = (Option<File>, Identity);

pub struct Files {
    entries: Vec<Entry>,
    known: HashMap<Key, FileId>,
    /// Those held, oldest first.
    order: VecDeque<FileId>,
    limit: usize,
}

impl Files {
    /// Holds at most `limit` descriptors.
    pub fn new(limit: usize) -> Files {
        Files { entries: Vec::new(), known: HashMap::new(), order: VecDeque::new(), limit }
    }

    /// Descriptors that may be open at once before they are handed to [`Files::note`].
    pub fn at_once(&self) -> usize {
        self.limit / 2
    }

    /// Is [`open`] to be called for this mapping, before [`Files::note`]?
    pub fn wants(&self, line: &Line<'_>) -> bool {
        let held = |id: &FileId| self.entries[*id as usize].held.is_some();
        line.exec && line.path.starts_with(b"/") && !self.known.get(&Key::of(line)).is_some_and(held)
    }

    /// The file of a mapping.
    pub fn note(&mut self, pid: u32, line: &Line<'_>, opened: Option<Opened>) -> FileId {
        let key = Key::of(line);
        if let Some(&id) = self.known.get(&key) {
            let entry = &mut self.entries[id as usize];
            entry.pid = pid;
            // Held: its inode cannot have become another file's.
            let Some((file, identity)) = opened.filter(|_| entry.held.is_none()) else { return id };
            match entry.identity {
                Some(known) if known == identity => return id,
                // Only data was mapped until now.
                None => {
                    self.hold(id, file, identity);
                    return id;
                }
                // The inode was used again.
                Some(_) => return self.add(key, pid, line, Some((file, identity))),
            }
        }
        self.add(key, pid, line, opened)
    }

    fn add(&mut self, key: Key, pid: u32, line: &Line<'_>, opened: Option<Opened>) -> FileId {
        let id = self.entries.len() as FileId;
        let (name, path) =
            (String::from_utf8_lossy(line.path), PathBuf::from(OsStr::from_bytes(path_of(line))));
        self.entries.push(Entry { name: Arc::from(name), path, identity: None, held: None, pid });
        self.known.insert(key, id);
        if let Some((file, identity)) = opened {
            self.hold(id, file, identity);
        }
        id
    }

    fn hold(&mut self, id: FileId, file: Option<File>, identity: Identity) {
        self.entries[id as usize].identity = Some(identity);
        let Some(file) = file else { return };
        if self.order.len() >= self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries[oldest as usize].held = None;
        }
        self.entries[id as usize].held = Some(file);
        self.order.push_back(id);
    }

    pub fn name(&self, id: FileId) -> Arc<str> {
        Arc::clone(&self.entries[id as usize].name)
    }

    /// The path that it is known by comes first: debug information is looked for beside it.
    pub fn source(&self, id: FileId) -> Source {
        let entry = &self.entries[id as usize];
        let root = root(entry.pid);
        let mut candidates = vec![entry.path.clone()];
        candidates
            .extend(entry.held.as_ref().map(|held| format!("/proc/self/fd/{}", held.as_raw_fd()).into()));
        candidates.extend(entry.path.strip_prefix("/").ok().map(|path| root.join(path)));
        Source { identity: entry.identity, candidates, root }
    }

    #[cfg(test)]
    fn held(&self) -> usize {
        self.entries.iter().filter(|entry| entry.held.is_some()).count()
    }
}

fn path_of<'a>(line: &Line<'a>) -> &'a [u8] {
    line.path.strip_suffix(b" (deleted)").unwrap_or(line.path)
}

fn root(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root"))
}

/// The file of a mapping, by the mapping itself where that is allowed (`CAP_CHECKPOINT_RESTORE` or
/// `CAP_SYS_ADMIN`), else by its path, if that still leads to the same inode.
pub fn open(pid: u32, line: &Line<'_>) -> Option<Opened> {
    let handle = |path: &Path| {
        let file = File::options().read(true).custom_flags(libc::O_PATH).open(path).ok()?;
        let identity = Identity::of(&file)?;
        Some((Some(file), identity))
    };
    let mapped = format!("/proc/{pid}/map_files/{:x}-{:x}", line.start, line.end);
    handle(Path::new(&mapped)).or_else(|| {
        let path = Path::new(OsStr::from_bytes(line.path));
        let found = handle(&root(pid).join(path.strip_prefix("/").ok()?))?;
        (found.1.inode == line.inode).then_some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps;

    fn executable(maps: &[u8]) -> Vec<Line<'_>> {
        maps::parse(maps).filter(|line| line.exec && line.path.starts_with(b"/")).collect()
    }

    #[test]
    fn a_file_is_one_however_often_it_is_mapped_and_descriptors_are_bounded() {
        let maps = std::fs::read("/proc/self/maps").unwrap();
        let pid = std::process::id();
        let mut files = Files::new(2);
        let lines = executable(&maps);
        assert!(lines.len() >= 3, "this test needs a program with two libraries");
        let note = |files: &mut Files, line: &Line<'_>| {
            let opened = files.wants(line).then(|| open(pid, line)).flatten();
            files.note(pid, line, opened)
        };
        let ids: Vec<_> = lines.iter().map(|line| note(&mut files, line)).collect();
        assert_eq!(files.held(), 2);
        let again: Vec<_> = lines.iter().map(|line| note(&mut files, line)).collect();
        assert_eq!(ids, again);
        for id in ids {
            // Held or not, the path leads here.
            assert_eq!(files.source(id).path().unwrap().to_str().unwrap(), &*files.name(id));
        }
    }
}
