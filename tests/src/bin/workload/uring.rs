//! Opens through io_uring, one at a time, each waited for.

use std::ffi::CString;
use std::io;

use io_uring::{IoUring, opcode, squeue, types};

use crate::opens::{How, NotHere, Opener};

pub fn opener(route: &str, path: CString, how: How) -> Result<Opener, NotHere> {
    let How { flags, mode } = how;
    let mut ring = IoUring::new(8).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM) => NotHere::Unsupported(format!("io_uring: {error}")),
        _ => NotHere::Failed(format!("io_uring: {error}")),
    })?;
    if route == "uring-direct" {
        ring.submitter()
            .register_files_sparse(1)
            .map_err(|e| NotHere::Unsupported(format!("file table: {e}")))?;
    }
    let how = Box::new(types::OpenHow::new().flags(flags as u64).mode(if flags & libc::O_CREAT == 0 {
        0
    } else {
        mode.into()
    }));
    let here = types::Fd(libc::AT_FDCWD);
    let at = |path: &CString| opcode::OpenAt::new(here, path.as_ptr()).flags(flags).mode(mode);
    let entry: squeue::Entry = match route {
        "uring-openat2" => opcode::OpenAt2::new(here, path.as_ptr(), &raw const *how).build(),
        "uring-async" => at(&path).build().flags(squeue::Flags::ASYNC),
        "uring-direct" => {
            let slot = types::DestinationSlot::try_from_slot_target(0);
            at(&path).file_index(slot.ok()).build()
        }
        _ => at(&path).build(),
    };
    Ok(Box::new(move || {
        // The request points to both, which the closure owns for as long as it can be called.
        let _keep = (&path, &how);
        submit(&mut ring, &entry)
            .unwrap_or_else(|error| -i64::from(error.raw_os_error().unwrap_or(libc::EIO)))
    }))
}

fn submit(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<i64> {
    // SAFETY: the name and the open_how live in the closure that called, past the completion that is
    // waited for below.
    unsafe { ring.submission().push(entry) }.map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))?;
    ring.submit_and_wait(1)?;
    let done = ring.completion().next().ok_or_else(|| io::Error::from_raw_os_error(libc::EIO))?;
    Ok(i64::from(done.result()))
}
