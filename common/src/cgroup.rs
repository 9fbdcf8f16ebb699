//! cgroup v2: what a user calls a group, and the name of an id that a BPF program saw.
//!
//! The id of a group is the inode number of its directory. Paths are shown and taken as /proc/PID/cgroup
//! has them, in a container's cgroup namespace too.

mod handle;
mod names;
mod throttle;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use crate::exit::{Kind, fault};
use crate::proc::{self, Mount};
use crate::text::escape;

pub use names::Names;
pub use throttle::{Scope, Throttle, ThrottleWatch, Throttling};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its directory.
    pub path: PathBuf,
    /// As in /proc/PID/cgroup; still to be escaped like all text.
    pub shown: String,
    pub id: u64,
}

/// The group of `-c`: an absolute directory, a path as in /proc/PID/cgroup (`/system.slice/x.service`),
/// `self`, or the number of an id.
///
/// # Errors
/// [`Kind::Failed`]: it is not there, or no cgroup v2 at all.
pub fn resolve(given: impl AsRef<OsStr>) -> Result<Cgroup> {
    Tree::find()?.resolve(Path::new(given.as_ref()))
}

/// Where a hierarchy is mounted, and which part of it.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
    point: PathBuf,
}

impl Tree {
    /// # Errors
    /// No cgroup v2 is mounted.
    pub fn find() -> Result<Tree> {
        let cure = "mount one: mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2";
        let none = || fault(Kind::Failed, format!("no cgroup v2 is mounted: {cure}"));
        Tree::among(proc::mounts()?, |mount| mount.fs_type == "cgroup2", CGROUP2_SUPER_MAGIC).ok_or_else(none)
    }

    /// The v1 hierarchy of a controller, if it has one.
    #[must_use]
    pub fn v1(controller: &str) -> Option<Tree> {
        Tree::among(proc::mounts().ok()?, |mount| has_controller(mount, controller), CGROUP_SUPER_MAGIC)
    }

    /// A whole hierarchy rather than a part; one that is not buried under another mount.
    fn among(mounts: Vec<Mount>, wanted: impl Fn(&Mount) -> bool, magic: FsType) -> Option<Tree> {
        let mut mounts: Vec<Mount> =
            mounts.into_iter().filter(|m| wanted(m) && is_on(&m.point, magic)).collect();
        mounts.sort_by_key(|mount| mount.root != Path::new("/"));
        mounts.into_iter().next().map(|Mount { root, point, .. }| Tree { root, point })
    }

    #[must_use]
    pub fn top(&self) -> &Path {
        &self.point
    }

    /// # Errors
    /// It is not there.
    pub fn at(&self, path: PathBuf) -> io::Result<Cgroup> {
        let id = fs::metadata(&path)?.ino();
        Ok(Cgroup { shown: self.shown(&path), path, id })
    }

    fn shown(&self, path: &Path) -> String {
        let shown = match path.strip_prefix(&self.point) {
            Ok(below) if below == Path::new("") => self.root.clone(),
            Ok(below) => self.root.join(below),
            Err(_) => path.to_owned(), // another mount of the same hierarchy
        };
        let bytes = shown.into_os_string().into_encoded_bytes();
        String::from_utf8(bytes).unwrap_or_else(|error| escape(error.as_bytes()).into_owned())
    }

    /// The directory of a path as in /proc/PID/cgroup.
    #[must_use]
    pub fn directory(&self, shown: &Path) -> PathBuf {
        let below = shown.strip_prefix(&self.root).or_else(|_| shown.strip_prefix("/")).unwrap_or(shown);
        if below == Path::new("") { self.point.clone() } else { self.point.join(below) }
    }

    fn resolve(&self, given: &Path) -> Result<Cgroup> {
        if given == Path::new("self") {
            let own = task_path(&fs::read("/proc/self/cgroup")?, "").unwrap_or_else(|| "/".into());
            return Ok(self.at(self.directory(&own))?);
        }
        if let Some(id) =
            given.to_str().filter(|text| !text.starts_with('+')).and_then(|text| text.parse().ok())
        {
            let none =
                || fault(Kind::Failed, format!("no cgroup has the id {id} below {}", self.point.display()));
            return self.by_id(id)?.ok_or_else(none);
        }
        let inside = if given.starts_with(&self.point) { given.to_owned() } else { self.directory(given) };
        // The second: through a symbolic link, another mount, or from the current directory.
        let found = [&*inside, given].into_iter().filter_map(|path| path.canonicalize().ok());
        match found.into_iter().find(|path| path.is_dir() && is_on(path, CGROUP2_SUPER_MAGIC)) {
            Some(path) => Ok(self.at(path)?),
            None => Err(self.not_found(given, &inside)),
        }
    }

    fn by_id(&self, id: u64) -> io::Result<Option<Cgroup>> {
        if let Ok(found) = handle::directory(&self.point, id) {
            return found.map(|path| self.at(path)).transpose();
        }
        let mut found = None;
        walk(&self.point, &mut |path, ino| {
            if ino == id {
                found = Some(path.to_owned());
            }
            found.is_none()
        });
        found.map(|path| self.at(path)).transpose()
    }

    fn not_found(&self, given: &Path, inside: &Path) -> anyhow::Error {
        let v1 = proc::mounts().unwrap_or_default().into_iter().filter(|mount| mount.fs_type == "cgroup");
        let text = |path: &Path| escape(path.as_os_str().as_bytes()).into_owned();
        let (given_text, point) = (text(given), text(&self.point));
        for mount in v1 {
            let below = mount.point.join(given.strip_prefix("/").unwrap_or(given));
            if given.starts_with(&mount.point) && given.is_dir() || below.is_dir() {
                let which = format!("{given_text} is a directory of cgroup v1 ({})", mount.options);
                return fault(Kind::Failed, format!("{which}: give one of cgroup v2, below {point}"));
            }
        }
        let looked = format!("no cgroup {given_text}: looked for a directory {}", text(inside));
        fault(Kind::Failed, looked + " (/proc/PID/cgroup has the path of a process, after 0::)")
    }
}

fn is_on(path: &Path, magic: FsType) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == magic)
}

fn has_controller(mount: &Mount, controller: &str) -> bool {
    mount.fs_type == "cgroup" && mount.options.split(',').any(|option| option == controller)
}

/// The path in the text of /proc/PID/cgroup, of the v1 hierarchy of a controller, or of v2 if it is "".
#[must_use]
pub fn task_path(file: &[u8], controller: &str) -> Option<PathBuf> {
    file.split(|b| *b == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |b| *b == b':').skip(1);
        let mut controllers = fields.next()?.split(|b| *b == b',');
        let path = fields.next()?;
        controllers.any(|c| c == controller.as_bytes()).then(|| PathBuf::from(OsStr::from_bytes(path)))
    })
}

/// Calls `visit` with each directory from `dir` down and its inode; it says whether to go below. What
/// vanishes on the way is passed over.
pub fn walk(dir: &Path, visit: &mut dyn FnMut(&Path, u64) -> bool) {
    let Ok(found) = fs::metadata(dir) else { return };
    // A directory with two links has no directories: its 50 files need not be listed.
    if !visit(dir, found.ino()) || found.nlink() == 2 {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;
    use crate::exit::{Verdict, verdict};

    fn tree(root: &str, point: &str) -> Tree {
        Tree { root: root.into(), point: point.into() }
    }

    #[test]
    fn paths_are_those_of_proc_whatever_part_is_mounted_where() {
        let cases = [
            ("/", "/sys/fs/cgroup", "/a/b.service", "/sys/fs/cgroup/a/b.service"),
            ("/", "/sys/fs/cgroup/unified", "/", "/sys/fs/cgroup/unified"),
            // A container that shares the host's cgroup namespace, and one that sees the host's mount.
            ("/docker/1", "/sys/fs/cgroup", "/docker/1/x", "/sys/fs/cgroup/x"),
            ("/docker/1", "/sys/fs/cgroup", "/docker/1", "/sys/fs/cgroup"),
            ("/..", "/host", "/../sibling", "/host/sibling"),
        ];
        for (root, point, shown, directory) in cases {
            let tree = tree(root, point);
            assert_eq!(tree.directory(Path::new(shown)), PathBuf::from(directory));
            assert_eq!(tree.shown(Path::new(directory)), shown);
        }
        assert_eq!(tree("/", "/c").directory(Path::new("a.slice")), PathBuf::from("/c/a.slice"));
        let hostile = PathBuf::from(OsString::from_vec(b"/c/\xff".to_vec()));
        assert_eq!(tree("/", "/c").shown(&hostile), "/\\377");
    }

    #[test]
    fn the_path_of_a_task_is_found_by_controller() {
        let file = b"12:cpu,cpuacct:/v1:x\n3:name=systemd:/s\n0::/user.slice\n";
        assert_eq!(task_path(file, ""), Some("/user.slice".into()));
        assert_eq!(task_path(file, "cpu"), Some("/v1:x".into()));
        assert_eq!(task_path(file, "pids"), None);
    }

    #[test]
    fn a_whole_hierarchy_goes_before_a_part() {
        let mount = |root: &str, point: &str| Mount {
            root: root.into(),
            point: point.into(),
            fs_type: "x".into(),
            options: String::new(),
        };
        let magic = statfs("/").unwrap().filesystem_type();
        let mounts = vec![mount("/part", "/"), mount("/", "/no such"), mount("/", "/.")];
        assert_eq!(Tree::among(mounts, |_| true, magic).unwrap().top(), Path::new("/."));
    }

    #[test]
    fn what_is_no_cgroup_is_named_with_the_place_looked_at() {
        let tree = tree("/", "/proc/self");
        for given in ["no/such\x1b", "/etc", "stat"] {
            let error = tree.resolve(Path::new(given)).unwrap_err();
            assert_eq!(verdict(&error), Verdict::Report(Kind::Failed));
            let expected = format!("no cgroup {}: looked for", escape(given.as_bytes()));
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
    }
}
