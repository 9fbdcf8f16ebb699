//! The vdso: code that the kernel maps into every process, and that is in no file.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::maps;

/// A copy of ours, which is that of every process of our word size.
pub fn path() -> Option<PathBuf> {
    static COPY: OnceLock<Option<File>> = OnceLock::new();
    let file = COPY.get_or_init(copy).as_ref()?;
    Some(PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())))
}

fn copy() -> Option<File> {
    let maps = fs::read("/proc/self/maps").ok()?;
    let line = maps::parse(&maps).find(|line| line.path == b"[vdso]")?;
    let mut bytes = vec![0; usize::try_from(line.end - line.start).ok()?];
    File::open("/proc/self/mem").ok()?.read_exact_at(&mut bytes, line.start).ok()?;
    let mut file = File::from(memfd_create("vdso", MFdFlags::MFD_CLOEXEC).ok()?);
    file.write_all(&bytes).ok()?;
    Some(file)
}
