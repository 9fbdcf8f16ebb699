//! cgroup v2: what a user calls a group, and the name of an id that a BPF program saw.
//!
//! The id of a group is the inode number of its directory. Paths are shown and taken as /proc/PID/cgroup
//! has them, in a container's cgroup namespace too.

mod handle;
mod names;
mod tasks;
mod throttle;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use crate::exit::{Kind, fault};
use crate::proc::{self, Mount};
use crate::text::escape;

pub use names::Names;
pub use tasks::Tasks;
pub use throttle::{Scope, Throttle, ThrottleWatch, Throttling};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its directory.
    pub path: PathBuf,
    /// As in /proc/PID/cgroup; still to be escaped like all text.
    pub shown: String,
    pub id: u64,
}

/// The group of `-c`: a directory, a path as in /proc/PID/cgroup (`/system.slice/x.service`), `self`, or
/// the number of an id. A group whose name is `self` or a number is `./self` or `/123`.
///
/// # Errors
/// [`Kind::Failed`]: it is not there, or no cgroup v2 at all.
pub fn resolve(given: impl AsRef<OsStr>) -> Result<Cgroup> {
    resolve_in(&Tree::v2()?, Path::new(given.as_ref()))
}

/// A mount of a hierarchy.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The path of its top, as /proc/PID/cgroup would have it: `/`; another where a container's part is
    /// mounted alone; `/..` and the like where a container sees the host's mount.
    root: PathBuf,
    point: PathBuf,
}

impl Tree {
    /// The mounts of cgroup v2, best first; mostly one.
    ///
    /// # Errors
    /// There is none.
    pub fn v2() -> Result<Vec<Tree>> {
        let found = Tree::among(proc::mounts()?, |mount| mount.fs_type == "cgroup2", CGROUP2_SUPER_MAGIC);
        if found.is_empty() {
            let cure = "mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2";
            return Err(fault(Kind::Failed, format!("no cgroup v2 is mounted: {cure}")));
        }
        Ok(found)
    }

    /// Those of the v1 hierarchy of a controller.
    #[must_use]
    pub fn v1(controller: &str) -> Vec<Tree> {
        let has =
            |mount: &Mount| mount.fs_type == "cgroup" && mount.options.split(',').any(|o| o == controller);
        Tree::among(proc::mounts().unwrap_or_default(), has, CGROUP_SUPER_MAGIC)
    }

    /// The namespace's own top first, then what is above it, then parts; nothing twice, and nothing that
    /// is buried under another mount.
    fn among(mounts: Vec<Mount>, wanted: impl Fn(&Mount) -> bool, magic: FsType) -> Vec<Tree> {
        let live = mounts.into_iter().filter(|mount| wanted(mount) && is_on(&mount.point, magic));
        let mut trees: Vec<Tree> = live.map(|Mount { root, point, .. }| Tree { root, point }).collect();
        trees.sort_by_key(|tree| {
            (tree.root != Path::new("/"), !tree.root.starts_with("/.."), tree.root.clone())
        });
        trees.dedup_by(|later, first| later.root == first.root);
        trees
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
        match path.strip_prefix(&self.point) {
            Ok(below) if below == Path::new("") => text(&self.root),
            Ok(below) => text(&self.root.join(below)),
            Err(_) => text(path),
        }
    }

    /// The directory of a path as in /proc/PID/cgroup, there or not; none if it is outside of this mount.
    #[must_use]
    pub fn directory(&self, shown: &Path) -> Option<PathBuf> {
        let below = if shown.is_absolute() { shown.strip_prefix(&self.root).ok()? } else { shown };
        // Up from the top of a namespace: only the kernel knows where that is.
        let up = below.components().next() == Some(Component::ParentDir);
        let nested = self.root.starts_with("/..") && !shown.is_absolute();
        (!up && !nested).then(|| self.point.join(below).components().collect())
    }

    /// The group with this id, if it is in this mount.
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
}

fn resolve_in(trees: &[Tree], given: &Path) -> Result<Cgroup> {
    if given == Path::new("") {
        return Err(fault(Kind::Usage, "the path of the cgroup is empty")); // not the top: an unset variable
    }
    let inside = |shown: &Path| trees.iter().filter_map(|tree| tree.directory(shown)).collect::<Vec<_>>();
    if given == Path::new("self") {
        let own = task_path(&fs::read("/proc/self/cgroup")?, "").unwrap_or_default();
        return existing(trees, &inside(&own))?.ok_or_else(|| not_found(given, &inside(&own)));
    }
    if let Some(id) = given.to_str().filter(|text| !text.starts_with('+')).and_then(|text| text.parse().ok())
    {
        return by_id(trees, id)?.ok_or_else(|| {
            let points: Vec<String> = trees.iter().map(|tree| safe(&tree.point)).collect();
            fault(Kind::Failed, format!("no cgroup has the id {id} below {}", points.join(" and ")))
        });
    }
    // First as any other directory, from the current one; only cgroups count.
    if let Some(found) = existing(trees, &[given.to_owned()])? {
        return Ok(found);
    }
    let places = match trees.iter().any(|tree| given.starts_with(&tree.point)) {
        true => vec![given.to_owned()],
        false => inside(given),
    };
    existing(trees, &places)?.ok_or_else(|| not_found(given, &places))
}

fn by_id(trees: &[Tree], id: u64) -> io::Result<Option<Cgroup>> {
    trees.iter().find_map(|tree| tree.by_id(id).transpose()).transpose()
}

/// The first of these places where a group is.
fn existing(trees: &[Tree], places: &[PathBuf]) -> io::Result<Option<Cgroup>> {
    let real = places.iter().filter_map(|path| path.canonicalize().ok());
    let Some(path) = real.into_iter().find(|path| path.is_dir() && is_on(path, CGROUP2_SUPER_MAGIC)) else {
        return Ok(None);
    };
    if let Some(tree) = trees.iter().find(|tree| path.starts_with(&tree.point)) {
        return tree.at(path).map(Some);
    }
    let id = fs::metadata(&path)?.ino(); // in one more mount of the same
    Ok(Some(by_id(trees, id)?.unwrap_or_else(|| Cgroup { shown: text(&path), path, id })))
}

fn not_found(given: &Path, looked_at: &[PathBuf]) -> anyhow::Error {
    let shown = safe(given);
    for mount in proc::mounts().unwrap_or_default().into_iter().filter(|mount| mount.fs_type == "cgroup") {
        let below = mount.point.join(given.strip_prefix("/").unwrap_or(given));
        if given.starts_with(&mount.point) && given.is_dir()
            || below.is_dir() && is_on(&below, CGROUP_SUPER_MAGIC)
        {
            let options = mount.options.trim_start_matches("rw,");
            let cure = "give one of cgroup v2 (grep cgroup2 /proc/mounts)";
            return fault(Kind::Failed, format!("{shown} is a directory of cgroup v1 ({options}): {cure}"));
        }
    }
    let places: Vec<String> = looked_at.iter().map(|path| safe(path)).collect();
    let why = match places.is_empty() {
        true => "outside of what is mounted here: give its directory (grep cgroup2 /proc/mounts)".to_owned(),
        false => {
            format!("no directory {} (the path of a process: grep 0:: /proc/PID/cgroup)", places.join(" or "))
        }
    };
    fault(Kind::Failed, format!("no cgroup {shown}: {why}"))
}

/// Without loss: what is not UTF-8 is escaped.
fn text(path: &Path) -> String {
    path.to_str().map_or_else(|| escape(path.as_os_str().as_bytes()).into_owned(), str::to_owned)
}

/// For messages.
fn safe(path: &Path) -> String {
    escape(path.as_os_str().as_bytes()).into_owned()
}

fn is_on(path: &Path, magic: FsType) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == magic)
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
            assert_eq!(tree.directory(Path::new(shown)), Some(directory.into()));
            assert_eq!(tree.shown(Path::new(directory)), shown);
        }
        assert_eq!(tree("/", "/c").directory(Path::new("a.slice")), Some("/c/a.slice".into()));
        let outside =
            [("/", "/../x"), ("/docker/1", "/x"), ("/../..", "/x"), ("/../..", "x"), ("/..", "/../../x")];
        for (root, shown) in outside {
            assert_eq!(tree(root, "/c").directory(Path::new(shown)), None, "{root} {shown}");
        }
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
    fn the_namespaces_own_top_goes_first_and_nothing_is_taken_twice() {
        let mount = |(root, point): (&str, &str)| Mount {
            root: root.into(),
            point: point.into(),
            fs_type: "x".into(),
            options: String::new(),
        };
        let magic = statfs("/").unwrap().filesystem_type();
        let mounts =
            [("/part", "/"), ("/..", "/../"), ("/", "/no such"), ("/", "/."), ("/", "/./.")].map(mount);
        let trees = Tree::among(mounts.into(), |_| true, magic);
        let roots: Vec<&str> = trees.iter().map(|tree| tree.root.to_str().unwrap()).collect();
        assert_eq!(roots, ["/", "/..", "/part"]);
        assert_eq!(trees[0].top().as_os_str(), "/.");
    }

    #[test]
    fn what_is_no_cgroup_is_named_with_the_place_looked_at() {
        let trees = [tree("/", "/proc/self")];
        for (given, place) in [("no/such\x1b", "/proc/self/no/such\x1b"), ("/etc", "/proc/self/etc")] {
            let error = resolve_in(&trees, Path::new(given)).unwrap_err();
            assert_eq!(verdict(&error), Verdict::Report(Kind::Failed));
            let safe = |text: &str| escape(text.as_bytes()).into_owned();
            let expected = format!("no cgroup {}: no directory {} (", safe(given), safe(place));
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
        let error = resolve_in(&trees, Path::new("/proc/self/x")).unwrap_err();
        assert!(
            error.to_string().starts_with("no cgroup /proc/self/x: no directory /proc/self/x ("),
            "{error}"
        );
        assert_eq!(verdict(&resolve_in(&trees, Path::new("")).unwrap_err()), Verdict::Report(Kind::Usage));
        let error = resolve_in(&[tree("/../..", "/proc/self")], Path::new("/fd")).unwrap_err();
        assert!(error.to_string().starts_with("no cgroup /fd: outside of what is mounted"), "{error}");
    }
}
