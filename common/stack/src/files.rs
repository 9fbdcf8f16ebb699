//! The files that processes have mapped, each once, and how to read them later: when the process has
//! exited, when the file was deleted or replaced, when it is a container's.
//!
//! A descriptor (`O_PATH`) is held for each, so that the very file is there in the end and its inode is not
//! used again meanwhile. There is a limit; what can be opened by its path from here gives way first.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, Metadata};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::maps::Line;

/// Which file.
pub type FileId = u32;

/// Tells one file from another that has its path or its inode later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(meta: &Metadata) -> Identity {
        Identity {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        }
    }

    fn at(path: &Path) -> Option<Identity> {
        fs::metadata(path).ok().map(|meta| Identity::of(&meta))
    }
}

struct Entry {
    /// As the kernel writes it.
    name: Rc<str>,
    path: PathBuf,
    /// Unknown: it could not be opened, and will not be.
    identity: Option<Identity>,
    /// Does the path lead to it from here?
    here: bool,
    held: Option<File>,
    /// A process that had it mapped, for its root directory.
    pid: u32,
}

/// A file as mappings name it.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    device: Box<[u8]>,
    inode: u64,
    path: Box<[u8]>,
}

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

    /// The file of a mapping of a process that lives.
    pub fn note(&mut self, pid: u32, line: &Line<'_>) -> FileId {
        let key = Key { device: line.device.into(), inode: line.inode, path: line.path.into() };
        if let Some(&id) = self.known.get(&key) {
            let entry = &mut self.entries[id as usize];
            entry.pid = pid;
            if entry.held.is_some() || !line.exec {
                return id; // held: its inode cannot have become another file's
            }
            let Some((file, identity)) = open(pid, line) else { return id };
            match entry.identity {
                // Only data was mapped until now.
                None => {
                    self.hold(id, file, identity);
                    return id;
                }
                Some(known) if known == identity => return id,
                // The inode was used again.
                Some(_) => {}
            }
        }
        let id = self.entries.len() as FileId;
        let path = line.path.strip_suffix(b" (deleted)").unwrap_or(line.path);
        self.entries.push(Entry {
            name: Rc::from(String::from_utf8_lossy(line.path)),
            path: PathBuf::from(std::ffi::OsStr::from_bytes(path)),
            identity: None,
            here: false,
            held: None,
            pid,
        });
        self.known.insert(key, id);
        if let Some((file, identity)) = line.exec.then(|| open(pid, line)).flatten() {
            self.hold(id, file, identity);
        }
        id
    }

    fn hold(&mut self, id: FileId, file: File, identity: Identity) {
        if self.order.len() >= self.limit {
            // A search of at most `limit` steps, and only beyond the limit.
            let here = self.order.iter().position(|id| self.entries[*id as usize].here);
            if let Some(old) = self.order.remove(here.unwrap_or(0)) {
                self.entries[old as usize].held = None;
            }
        }
        let entry = &mut self.entries[id as usize];
        entry.identity = Some(identity);
        entry.here = Identity::at(&entry.path) == Some(identity);
        entry.held = Some(file);
        self.order.push_back(id);
    }

    pub fn name(&self, id: FileId) -> Rc<str> {
        Rc::clone(&self.entries[id as usize].name)
    }

    /// A path at which the file can be opened now, and only this very file. The one it is known by comes
    /// first: debug information is looked for beside it.
    pub fn path(&self, id: FileId) -> Option<PathBuf> {
        let entry = &self.entries[id as usize];
        let identity = entry.identity?;
        if Identity::at(&entry.path) == Some(identity) {
            return Some(entry.path.clone());
        }
        if let Some(held) = &entry.held {
            return Some(PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd())));
        }
        let path = root(entry.pid).join(entry.path.strip_prefix("/").ok()?);
        (Identity::at(&path) == Some(identity)).then_some(path)
    }

    /// The root directory of a process that had it mapped.
    pub fn root(&self, id: FileId) -> PathBuf {
        root(self.entries[id as usize].pid)
    }

    #[cfg(test)]
    fn held(&self) -> usize {
        self.entries.iter().filter(|entry| entry.held.is_some()).count()
    }
}

fn root(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root"))
}

/// The file of a mapping, by the mapping itself where that is allowed (`CAP_CHECKPOINT_RESTORE` or
/// `CAP_SYS_ADMIN`), else by its path, if that still leads to the same inode.
fn open(pid: u32, line: &Line<'_>) -> Option<(File, Identity)> {
    let handle = |path: &Path| {
        let file = File::options().read(true).custom_flags(libc::O_PATH).open(path).ok()?;
        let meta = file.metadata().ok()?;
        meta.is_file().then(|| (file, Identity::of(&meta)))
    };
    let mapped = format!("/proc/{pid}/map_files/{:x}-{:x}", line.start, line.end);
    handle(Path::new(&mapped)).or_else(|| {
        let path = Path::new(std::ffi::OsStr::from_bytes(line.path));
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
        let maps = fs::read("/proc/self/maps").unwrap();
        let pid = std::process::id();
        let mut files = Files::new(2);
        let lines = executable(&maps);
        assert!(lines.len() >= 3, "this test needs a program with two libraries");
        let ids: Vec<_> = lines.iter().map(|line| files.note(pid, line)).collect();
        assert_eq!(files.held(), 2);
        let again: Vec<_> = lines.iter().map(|line| files.note(pid, line)).collect();
        assert_eq!(ids, again);
        for id in ids {
            // Held or not, the path leads here.
            assert_eq!(files.path(id).unwrap().to_str().unwrap(), &*files.name(id));
        }
    }
}
