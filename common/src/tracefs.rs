//! tracefs, wherever it is; where it is not, mounted for this process alone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{TRACEFS_MAGIC, statfs};

use crate::exit::{Kind, fault};
use crate::privilege::{CAP_SYS_ADMIN, Facts};
use crate::proc::{self, Mount};

/// A mount of tracefs, or the one that debugfs makes in itself when it is looked at.
#[must_use]
pub fn find() -> Option<PathBuf> {
    candidates(&proc::mounts().ok()?).into_iter().find(|dir| is_tracefs(dir))
}

fn candidates(mounts: &[Mount]) -> Vec<PathBuf> {
    let whole = |fs_type: &str| {
        let found = mounts.iter().filter(|mount| mount.fs_type == fs_type && mount.root == Path::new("/"));
        found.map(|mount| mount.point.clone()).collect::<Vec<_>>()
    };
    let inside = whole("debugfs").into_iter().map(|point| point.join("tracing"));
    whole("tracefs").into_iter().chain(inside).collect()
}

/// What is mounted there may be buried under something else.
fn is_tracefs(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|found| found.filesystem_type() == TRACEFS_MAGIC)
}

/// [`find`], else a mount in a new mount namespace of the calling thread, gone when that ends.
///
/// Call it from the main thread before others are made, and after the fork of a command (child.rs): both
/// would be in that namespace.
///
/// # Errors
/// [`Kind::Privilege`] without `CAP_SYS_ADMIN`, [`Kind::Unsupported`] where the kernel has no tracefs.
pub fn with_tracefs() -> Result<PathBuf> {
    find().map_or_else(mount_privately, Ok)
}

/// The places that libbpf knows.
const STANDARD: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Could libbpf attach to this event, if need be after [`where_libbpf_looks`]?
///
/// # Errors
/// Why not, in a few words.
pub fn can_find(category: &str, name: &str) -> std::result::Result<(), String> {
    let id = |dir: &&str| fs::read(format!("{dir}/events/{category}/{name}/id")).is_ok();
    if STANDARD.iter().any(id) {
        return Ok(());
    }
    // Not mounted there: mounting it takes root and the directory.
    let root = Facts::read().capabilities >> CAP_SYS_ADMIN & 1 == 1;
    let mountable = Path::new(STANDARD[0]).is_dir() && !is_tracefs(Path::new(STANDARD[0]));
    if root && mountable { Ok(()) } else { Err(format!("{} cannot be read", STANDARD[0])) }
}

/// Makes sure of a tracefs in one of the places that libbpf knows. When to call it: see [`with_tracefs`].
///
/// # Errors
/// As [`with_tracefs`].
pub fn where_libbpf_looks() -> Result<()> {
    if STANDARD.iter().any(|dir| is_tracefs(Path::new(dir))) {
        return Ok(());
    }
    mount_privately().map(|_| ())
}

fn mount_privately() -> Result<PathBuf> {
    if !fs::read_to_string("/proc/filesystems")?.lines().any(|line| line.ends_with("\ttracefs")) {
        let cure = "boot a kernel with CONFIG_FTRACE=y";
        return Err(fault(Kind::Unsupported, format!("this kernel has no tracefs: {cure}")));
    }
    let denied = |error: nix::Error| {
        let cure = "run as root, or mount it: mount -t tracefs nodev /sys/kernel/tracing";
        let kind = if error == nix::Error::EPERM { Kind::Privilege } else { Kind::Failed };
        fault(kind, format!("tracefs is not mounted, and cannot be for this process alone ({error}): {cure}"))
    };
    unshare(CloneFlags::CLONE_NEWNS).map_err(denied)?;
    // Not private: an unmount by others must still reach us, or we would keep their file system busy.
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).map_err(denied)?;
    // The first is where libbpf looks. The other is everywhere, and covered for nobody else.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let at = |dir: &str| mount(Some("nodev"), dir, Some("tracefs"), flags, None::<&str>).map(|()| dir.into());
    at("/sys/kernel/tracing").or_else(|_| at("/mnt")).map_err(denied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Verdict, verdict};

    #[test]
    fn tracefs_goes_before_debugfs_and_a_part_does_not_count() {
        let text = b"1 0 0:1 / /sys/kernel/debug rw - debugfs debugfs rw\n\
            2 0 0:2 /events /part rw - tracefs tracefs rw\n\
            3 0 0:2 / /my\\040trace rw shared:7 - tracefs nodev rw\n";
        let found = candidates(&proc::parse_mountinfo(text));
        assert_eq!(found, [PathBuf::from("/my trace"), PathBuf::from("/sys/kernel/debug/tracing")]);
        assert!(!is_tracefs(Path::new("/proc")) && !is_tracefs(Path::new("/no/such")));
    }

    #[test]
    fn without_privilege_the_cure_is_named() {
        let thread = std::thread::spawn(|| {
            // SAFETY: no pointers are passed. Without the C library, which would change all threads.
            unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
            let error = mount_privately().unwrap_err();
            assert_eq!(verdict(&error), Verdict::Report(Kind::Privilege));
            assert!(error.to_string().contains("run as root"), "{error}");
        });
        thread.join().unwrap();
    }

    mod root {
        use super::*;

        #[test]
        fn a_private_mount_is_seen_by_nobody_else() {
            // Of the main thread.
            let others =
                || fs::read_to_string("/proc/self/mountinfo").unwrap().matches(" - tracefs ").count();
            let before = others();
            // A namespace of this thread, gone with it.
            let thread = std::thread::spawn(move || {
                let dir = mount_privately().unwrap();
                assert!(is_tracefs(&dir) && dir.join("events/sched/sched_switch/format").exists());
                assert!(find().is_some());
                let count = proc::mounts().unwrap().iter().filter(|mount| mount.fs_type == "tracefs").count();
                assert_eq!((count, others()), (before + 1, before));
            });
            thread.join().unwrap();
            assert_eq!(others(), before);
        }
    }
}
