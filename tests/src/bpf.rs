//! The kernel's BPF objects: which a process holds, and whether they are still there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Of include/uapi/linux/bpf.h.
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const MAP_GET_FD_BY_ID: libc::c_int = 14;
const LINK_GET_FD_BY_ID: libc::c_int = 30;

/// Kind ("prog", "map", "link") and number.
pub type Object = (&'static str, u32);

/// What a process has descriptors of.
#[must_use]
pub fn held_by(pid: u32) -> BTreeSet<Object> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten() {
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let kind = match name {
                "prog_id" => "prog",
                "map_id" => "map",
                "link_id" => "link",
                _ => continue,
            };
            found.insert((kind, value.trim().parse().unwrap()));
        }
    }
    found
}

/// Whether the kernel still has it.
#[must_use]
pub fn is_there(object: Object) -> bool {
    let (kind, id) = object;
    let command = match kind {
        "prog" => PROG_GET_FD_BY_ID,
        "map" => MAP_GET_FD_BY_ID,
        _ => LINK_GET_FD_BY_ID,
    };
    // The beginning of union bpf_attr: id, next_id, open_flags.
    let attr = [id, 0, 0, 0];
    // SAFETY: the kernel reads as many bytes of the attributes as said.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(&attr)) };
    if fd < 0 {
        return false;
    }
    // SAFETY: a new descriptor that nobody else knows.
    unsafe { libc::close(fd as i32) };
    true
}

/// Everything pinned in any BPF file system.
#[must_use]
pub fn pinned() -> BTreeSet<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut found = BTreeSet::new();
    for line in mounts.lines().filter(|line| line.contains(" - bpf ")) {
        list(Path::new(line.split(' ').nth(4).unwrap()), &mut found);
    }
    found
}

fn list(dir: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(&path, found);
        }
        found.insert(path);
    }
}
