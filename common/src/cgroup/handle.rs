//! From a cgroup's id to its directory in one step: for kernfs, the id is the file handle.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// `struct file_handle` with the 8 bytes that kernfs uses.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: [u8; 8],
}

/// `FILEID_KERNFS` of include/linux/exportfs.h.
const KERNFS: i32 = 0xfe;

/// The directory with this id below a mount of the hierarchy; none if there is none (any more).
///
/// # Errors
/// `CAP_DAC_READ_SEARCH` is missing, or the kernel is older than 5.5, 33c5ac917519 ("kernfs: implement
/// custom exportfs ops and fid type").
pub fn directory(mount: &Path, id: u64) -> io::Result<Option<PathBuf>> {
    let top = File::open(mount)?;
    let fd = match open(&top, id) {
        // So says an older kernel of every handle.
        Err(error) if error.raw_os_error() == Some(libc::ESTALE) => {
            return open(&top, top.metadata()?.ino()).map(|_| None);
        }
        other => other?,
    };
    let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    // Files have ids too, and a group outside of the mounted part gets a path that leads elsewhere.
    let same = fs::metadata(&path).is_ok_and(|found| found.is_dir() && found.ino() == id);
    Ok((same && path.starts_with(mount)).then_some(path))
}

fn open(mount: &File, id: u64) -> io::Result<OwnedFd> {
    let mut handle = Handle { bytes: 8, kind: KERNFS, id: id.to_ne_bytes() };
    // SAFETY: `handle` has the layout of a file_handle with 8 bytes, and the kernel only reads it.
    let fd = unsafe {
        libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut handle).cast(), libc::O_PATH | libc::O_CLOEXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
