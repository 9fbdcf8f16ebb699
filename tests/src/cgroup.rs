//! Control groups of version 2, wherever they are mounted.

use std::fs;
use std::path::{Path, PathBuf};

use crate::temp::unique;
use crate::wait::eventually;
use crate::{env, wait_until};

/// A new group; removed on drop, with whatever still runs in it.
pub struct Cgroup {
    root: PathBuf,
    dir: PathBuf,
}

impl Cgroup {
    /// # Errors
    /// There is no such file system here, or it cannot be written to.
    pub fn new() -> Result<Cgroup, String> {
        let root = mount().ok_or("no cgroup v2 is mounted")?;
        let dir = root.join(unique("group"));
        fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(Cgroup { root, dir })
    }

    /// A group within this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Cgroup {
        let dir = self.dir.join(name);
        fs::create_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        Cgroup { root: self.root.clone(), dir }
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// As the kernel says it: from the root of the hierarchy.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/{}", self.dir.strip_prefix(&self.root).unwrap().display())
    }

    #[track_caller]
    pub fn add(&self, pid: u32) {
        self.write("cgroup.procs", &pid.to_string());
    }

    /// # Errors
    /// The controller cannot be had here; why.
    pub fn limit_cpu(&self, micros: u32, of: u32) -> Result<(), String> {
        self.limit("cpu", &format!("{micros} {of}"))
    }

    /// A disk (`8:1`) and what of it (`riops=20`).
    ///
    /// # Errors
    /// As [`Cgroup::limit_cpu`].
    pub fn limit_io(&self, device: &str, limit: &str) -> Result<(), String> {
        self.limit("io", &format!("{device} {limit}"))
    }

    fn limit(&self, controller: &str, limit: &str) -> Result<(), String> {
        let switch = self.root.join("cgroup.subtree_control");
        fs::write(&switch, format!("+{controller}"))
            .map_err(|e| format!("no {controller} controller in cgroup v2: {e}"))?;
        let file = self.dir.join(format!("{controller}.max"));
        fs::write(&file, limit).map_err(|e| format!("{}: {e}", file.display()))
    }

    #[track_caller]
    fn write(&self, name: &str, text: &str) {
        let path = self.dir.join(name);
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.dir.join("cgroup.kill"), "1"); // since 5.14
        eventually(env::patience(), || fs::remove_dir(&self.dir).ok());
    }
}

/// The mount point of the first cgroup2 file system.
#[must_use]
pub fn mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4).map(PathBuf::from)).flatten()
    })
}

/// A process id that is not in use and not about to be.
#[must_use]
#[track_caller]
pub fn free_pid() -> u32 {
    let max = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    let max: u32 = max.trim().parse().unwrap();
    // Numbers are given out below pid_max only.
    wait_until("a free process id", || (!Path::new(&format!("/proc/{max}")).exists()).then_some(max))
}
