//! A stdout that takes nothing any more: whoever writes to it waits.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::process::Stdio;

pub struct FullPipe {
    writer: PipeWriter,
    /// Never read, never closed.
    _reader: PipeReader,
}

impl FullPipe {
    /// Still empty.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a pipe")]
    pub fn new() -> FullPipe {
        let (reader, writer) = io::pipe().unwrap();
        FullPipe { writer, _reader: reader }
    }

    /// For `Tool::stdout`.
    #[must_use]
    pub fn stdout(&self) -> Stdio {
        self.writer.try_clone().unwrap().into()
    }

    /// To the last byte. By an opening of its own: O_NONBLOCK would else hold for the tool as well.
    pub fn fill(&self) {
        let path = CString::new(format!("/proc/self/fd/{}", self.writer.as_raw_fd())).unwrap();
        // SAFETY: a NUL-terminated path.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_NONBLOCK | libc::O_CLOEXEC) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: a new descriptor that nobody else owns.
        let mut again = unsafe { File::from_raw_fd(fd) };
        for size in [4096, 1] {
            while again.write(&vec![b'.'; size]).is_ok() {}
        }
    }
}
