//! What a child needs to become the command, all made before the fork.

use std::env;
use std::ffi::{CStr, CString, OsStr, OsString, c_char};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::ptr;

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::{AccessFlags, access, read, write};

use crate::exit::{Kind, fault};
use crate::text::escape;

pub(super) struct Image {
    pub(super) name: String,
    program: CString,
    /// What the pointers below point into.
    _args: Vec<CString>,
    argv: Vec<*const c_char>,
    /// For a script without `#!`, as execvp(3) does.
    shell_argv: Vec<*const c_char>,
}

const SHELL: &CStr = c"/bin/sh";

impl Image {
    pub(super) fn new(command: &[OsString]) -> Result<Image> {
        let Some(name) = command.first() else {
            return Err(fault(Kind::Usage, "no command after --"));
        };
        let shown = escape(name.as_bytes()).into_owned();
        let program = locate(name, env::var_os("PATH").as_deref())
            .map_err(|why| fault(Kind::Failed, format!("cannot run {shown}: {why}")))?;
        let program = CString::new(program.into_os_string().into_vec())?;
        let args = command.iter().map(|arg| CString::new(arg.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let ends = || args.iter().skip(1).map(|arg| arg.as_ptr()).chain([ptr::null()]);
        let argv = args.first().map(|arg| arg.as_ptr()).into_iter().chain(ends()).collect();
        let shell_argv = [SHELL.as_ptr(), program.as_ptr()].into_iter().chain(ends()).collect();
        Ok(Image { name: shown, program, _args: args, argv, shell_argv })
    }

    /// In the child: waits for the release. Only async-signal-safe calls, no allocation.
    pub(super) fn become_command(&self, ours: &UnixStream, gate: &UnixStream) -> ! {
        // SAFETY: the parent's end is closed once, and never used here again: else its end would not show.
        unsafe { libc::close(ours.as_raw_fd()) };
        reset_signals();
        let mut go = [0];
        loop {
            match read(gate, &mut go) {
                Ok(1) => break,
                Err(Errno::EINTR) => {}
                // SAFETY: ends at once, without the handlers of the tool's exit.
                _ => unsafe { libc::_exit(127) },
            }
        }
        // SAFETY: NUL-terminated strings in arrays that a null ends, all owned by `self`.
        unsafe {
            libc::execv(self.program.as_ptr(), self.argv.as_ptr());
            if Errno::last() == Errno::ENOEXEC {
                libc::execv(SHELL.as_ptr(), self.shell_argv.as_ptr());
            }
        }
        let _ = write(gate, &Errno::last_raw().to_ne_bytes());
        // SAFETY: as above.
        unsafe { libc::_exit(127) }
    }
}

/// What the tool handles gets its default again, and so does SIGPIPE, which Rust ignores; what else is
/// ignored stays so (nohup).
fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: `old` is a place for a sigaction, of which all bits zero is the default action.
        unsafe {
            let mut old: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, ptr::null(), &raw mut old) != 0 {
                continue; // the C library's own
            }
            if old.sa_sigaction != libc::SIG_IGN || signal == libc::SIGPIPE {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &raw const default, ptr::null_mut());
            }
        }
    }
    let _ = SigSet::empty().thread_set_mask();
}

/// Where execvp(3) would find it.
fn locate(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, String> {
    let runnable = |file: &Path| match access(file, AccessFlags::X_OK) {
        Ok(()) if file.is_dir() => Err("it is a directory".to_owned()),
        Ok(()) => Ok(file.to_owned()),
        Err(Errno::EACCES) => Err("not executable (see chmod +x), or in a closed directory".to_owned()),
        Err(errno) => Err(errno.desc().to_owned()),
    };
    if name.as_bytes().contains(&b'/') {
        return runnable(Path::new(name));
    }
    let path = path.unwrap_or(OsStr::new("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
    let candidates = || env::split_paths(path).map(|dir| Path::new(".").join(dir).join(name));
    if let Some(found) = candidates().find_map(|file| runnable(&file).ok()) {
        return Ok(found);
    }
    // One that is there and may not be run is the better answer.
    let there = candidates().find(|file| !name.is_empty() && file.is_file());
    there.map_or_else(|| Err("not found in PATH".to_owned()), |file| runnable(&file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_searched_as_a_shell_would() {
        let find = |name: &str, path: Option<&str>| locate(OsStr::new(name), path.map(OsStr::new));
        assert_eq!(find("sh", Some("/no/such:/bin")), Ok(PathBuf::from("/bin/sh")));
        assert!(find("sh", None).is_ok());
        assert!(find("passwd", Some("/no/such:/etc")).unwrap_err().starts_with("not executable"));
        assert_eq!(find("self", Some("/proc")), Err("not found in PATH".to_owned()), "a directory");
    }
}
