//! Tells one file from another that has its path, or its inode, later.

use std::ffi::CString;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: (u32, u32),
    pub inode: u64,
    size: u64,
    modified: (i64, u32),
}

impl Identity {
    /// Of a regular file at a path.
    pub fn at(path: &Path) -> Option<Identity> {
        statx(libc::AT_FDCWD, path, 0)
    }

    /// Of an open regular file.
    pub fn of(file: &File) -> Option<Identity> {
        statx(file.as_raw_fd(), Path::new(""), libc::AT_EMPTY_PATH)
    }
}

/// As stat(2), but a file server is not asked: one that does not answer may be what is looked for.
fn statx(directory: RawFd, path: &Path, flags: i32) -> Option<Identity> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    let flags = flags | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the path ends with a NUL, and `stat` has room for what the kernel writes.
    let result =
        unsafe { libc::statx(directory, path.as_ptr(), flags, libc::STATX_BASIC_STATS, stat.as_mut_ptr()) };
    if result != 0 {
        return None;
    }
    // SAFETY: all zeros are a statx, and the kernel has filled it in.
    let stat = unsafe { stat.assume_init() };
    let is_file = u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFREG;
    is_file.then_some(Identity {
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        size: stat.stx_size,
        modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
    })
}
