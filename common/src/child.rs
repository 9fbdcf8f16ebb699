//! The command of `TOOL -- CMD ARGS`: held before its exec, so that the tool can filter by its pid and
//! attach first.
//!
//! It shares the tool's terminal and process group, so Ctrl-C reaches both. `std::process::Command` cannot
//! hold a child: its spawn returns after the exec.

mod image;

use std::ffi::{OsString, c_int};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::ptr;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::unistd::{ForkResult, Pid, fork};

use crate::exit::{Kind, fault};
use image::Image;

/// Dropped before its release, the command never runs; after it, the command goes on by itself.
#[derive(Debug)]
pub struct Child {
    name: String,
    pid: libc::pid_t,
    pidfd: OwnedFd,
    /// Ends when the tool dies, however it dies; the child then does not run the command.
    gate: Option<UnixStream>,
    code: Option<u8>,
}

impl Child {
    /// Finds the command and forks. Fork before a private mount namespace is made (tracefs.rs): the
    /// command belongs into the user's.
    ///
    /// Descriptors that the tool's caller gave (`CMD <(…)`, make's jobserver) pass to the command; what a
    /// tool opens must be close-on-exec, as it is in the standard library and in libbpf.
    ///
    /// # Errors
    /// [`Kind::Failed`]: there is no such command, or it may not be run.
    pub fn spawn(command: &[OsString]) -> Result<Child> {
        let image = Image::new(command)?;
        let (ours, theirs) = UnixStream::pair().context("socketpair")?;
        // No handler of the tool may run in the child.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: until it execs or exits, the child calls only what is async-signal-safe.
        let forked = unsafe { fork() };
        if !matches!(forked, Ok(ForkResult::Child)) {
            mask.thread_set_mask()?;
        }
        let pid = match forked.context("fork")? {
            ForkResult::Child => image.become_command(&ours, &theirs),
            ForkResult::Parent { child } => child.as_raw(),
        };
        let pidfd = pidfd_open(pid).inspect_err(|_| discard(pid));
        let pidfd = pidfd.context("pidfd_open (Linux 5.3) is needed to run a command")?;
        Ok(Child { name: image.name, pid, pidfd, gate: Some(ours), code: None })
    }

    /// In the PID namespace of the tool.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Readable once the command has ended.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Lets the command run; returns after its exec. A signal may have ended it before: see
    /// [`Child::poll`].
    ///
    /// # Errors
    /// [`Kind::Failed`]: the kernel would not execute it.
    pub fn release(&mut self) -> Result<()> {
        let Some(mut gate) = self.gate.take() else {
            return Ok(());
        };
        let mut errno = [0; size_of::<c_int>()];
        match gate.write_all(b"x").and_then(|()| gate.read_exact(&mut errno)) {
            Ok(()) => {
                self.wait()?;
                let error = io::Error::from_raw_os_error(c_int::from_ne_bytes(errno));
                Err(fault(Kind::Failed, format!("cannot run {}: {error}", self.name)))
            }
            // Its end closes by the exec (UnexpectedEof) or by its death (the others).
            Err(_) => Ok(()),
        }
    }

    /// The exit code if it has ended: its own, or 128 + the signal.
    ///
    /// # Errors
    /// Somebody else has waited for it.
    pub fn poll(&mut self) -> io::Result<Option<u8>> {
        self.reap(libc::WNOHANG)
    }

    /// Waits for the end, as after Ctrl-C.
    ///
    /// # Errors
    /// As [`Child::poll`].
    pub fn wait(&mut self) -> io::Result<u8> {
        loop {
            if let Some(code) = self.reap(0)? {
                return Ok(code);
            }
        }
    }

    /// Passes a signal on, waits for the end and gives its exit code, unless ours says that the run was
    /// not what was asked for.
    ///
    /// # Errors
    /// As [`Child::poll`].
    pub fn end(mut self, forward: Option<Signal>, ours: ExitCode) -> Result<ExitCode> {
        if let (Some(signal), Ok(None)) = (forward, self.poll()) {
            kill(Pid::from_raw(self.pid), signal)?;
        }
        let theirs = ExitCode::from(self.wait()?);
        Ok(if ours == ExitCode::SUCCESS { theirs } else { ours })
    }

    /// Not nix's waitpid: it knows no real-time signals.
    fn reap(&mut self, flags: c_int) -> io::Result<Option<u8>> {
        if self.code.is_some() {
            return Ok(self.code);
        }
        let mut status = 0;
        // SAFETY: `status` is a place for an int.
        match unsafe { libc::waitpid(self.pid, &raw mut status, flags) } {
            0 => {}
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Err(io::Error::last_os_error()),
            _ => self.code = Some(code_of(status)),
        }
        Ok(self.code)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.gate.is_some() && self.code.is_none() {
            discard(self.pid);
        }
    }
}

fn code_of(status: c_int) -> u8 {
    let code =
        if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    code as u8 // both are below 256
}

/// Ends a child that was not released; SIGKILL, for it may be stopped.
fn discard(pid: libc::pid_t) {
    // SAFETY: our own child, not yet waited for, so that the number is still its; no pointer is followed.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        while libc::waitpid(pid, ptr::null_mut(), 0) < 0 && Errno::last() == Errno::EINTR {}
    }
}

fn pidfd_open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns; it is close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::{self, File};
    use std::path::PathBuf;
    use std::process::Command;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, Signal, kill, sigaction};
    use nix::unistd::Pid;

    use super::*;
    use crate::exit::{Verdict, verdict};
    use crate::proc;

    fn spawn(command: &[&str]) -> Result<Child> {
        Child::spawn(&command.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn run(command: &[&str]) -> u8 {
        let mut child = spawn(command).unwrap();
        child.release().unwrap();
        child.wait().unwrap()
    }

    /// An executable file with this text. Another process writes it: a child that another test holds
    /// must not have it open, or its exec fails.
    fn script(name: &str, text: &str) -> PathBuf {
        let path = env::temp_dir().join(format!("child-{name}-{}", std::process::id()));
        let write = "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let status = Command::new("sh").args(["-c", write, "sh"]).arg(&path).arg(text).status();
        assert!(status.unwrap().success());
        path
    }

    #[test]
    fn the_exit_code_is_passed_on() {
        assert_eq!(run(&["true"]), 0);
        assert_eq!(run(&["sh", "-c", "exit $1", "name", "23"]), 23);
        assert_eq!(run(&["sh", "-c", "kill -9 $$"]), 128 + 9);
        assert_eq!(run(&["sh", "-c", "kill -40 $$"]), 128 + 40, "a real-time signal");
    }

    #[test]
    fn nothing_runs_before_the_release_and_never_without() {
        let file = env::temp_dir().join(format!("child-ran-{}", std::process::id()));
        let command = ["touch", file.to_str().unwrap()];
        let mut child = spawn(&command).unwrap();
        let held = spawn(&command).unwrap();
        let pid = held.pid();
        assert_eq!(proc::tgid_of(pid), Some(pid));
        assert_eq!(child.poll().unwrap(), None);
        drop(held);
        assert!(proc::is_gone(pid) && !file.exists());
        child.release().unwrap();
        assert_eq!(child.wait().unwrap(), 0);
        assert!(fs::remove_file(&file).is_ok());
        assert_eq!(child.poll().unwrap(), Some(0), "the code stays");
    }

    #[test]
    fn the_command_does_not_run_when_the_tool_dies() {
        let mut child = spawn(&["sleep", "60"]).unwrap();
        child.gate = None; // what the kernel does for a tool that is killed
        assert_eq!(child.wait().unwrap(), 127);
    }

    #[test]
    fn ctrl_c_before_the_release_ends_it() {
        let mut child = spawn(&["sleep", "60"]).unwrap();
        kill(Pid::from_raw(child.pid), Signal::SIGINT).unwrap();
        child.release().unwrap();
        assert_eq!(child.wait().unwrap(), 128 + 2);
    }

    #[test]
    fn the_descriptor_tells_the_end() {
        let mut child = spawn(&["sleep", "60"]).unwrap();
        child.release().unwrap();
        let ready = |child: &Child, ms: u16| {
            let mut fds = [PollFd::new(child.fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(ms)).unwrap() == 1
        };
        assert!(!ready(&child, 0));
        kill(Pid::from_raw(child.pid), Signal::SIGTERM).unwrap();
        assert!(ready(&child, 10_000));
        assert_eq!(child.poll().unwrap(), Some(128 + 15));
    }

    #[test]
    fn what_cannot_run_is_named_before_anything_is_traced() {
        let plain = env::temp_dir().join(format!("child-plain-{}", std::process::id()));
        File::create(&plain).unwrap();
        let cases = [
            ("no-such\x1b", "cannot run no-such\\033: not found in PATH".to_owned()),
            ("./no/such", "cannot run ./no/such: No such file or directory".to_owned()),
            ("/", "cannot run /: it is a directory".to_owned()),
            ("", "cannot run : not found in PATH".to_owned()),
            (plain.to_str().unwrap(), format!("cannot run {}: not executable", plain.display())),
        ];
        for (command, expected) in cases {
            let error = spawn(&[command]).unwrap_err();
            assert_eq!(verdict(&error), Verdict::Report(Kind::Failed));
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
        fs::remove_file(plain).unwrap();
        assert_eq!(verdict(&spawn(&[]).unwrap_err()), Verdict::Report(Kind::Usage));
    }

    #[test]
    fn what_only_the_kernel_refuses_is_told_by_the_release() {
        let path = script("interpreter", "#!/no/such/interpreter\n");
        let error = spawn(&[path.to_str().unwrap()]).unwrap().release().unwrap_err();
        fs::remove_file(path).unwrap();
        assert_eq!(verdict(&error), Verdict::Report(Kind::Failed));
        assert!(
            error.to_string().contains("-interpreter-") && error.to_string().contains("No such file"),
            "{error}"
        );
    }

    #[test]
    fn a_script_without_an_interpreter_is_the_shells() {
        let path = script("plain", "test \"$1\" = 'a b' && exit 29\n");
        assert_eq!(run(&[path.to_str().unwrap(), "a b"]), 29);
        fs::remove_file(path).unwrap();
    }

    extern "C" fn ignore(_: c_int) {}

    #[test]
    fn neither_descriptors_nor_signals_of_the_tool_reach_the_command() {
        let own = script("fds", "");
        let _open = File::open(&own).unwrap();
        let handler = SigAction::new(SigHandler::Handler(ignore), SaFlags::empty(), SigSet::empty());
        let nohup = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing, and no other test uses these two signals.
        unsafe {
            sigaction(Signal::SIGUSR1, &handler).unwrap();
            sigaction(Signal::SIGUSR2, &nohup).unwrap();
        }
        let blocked: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        blocked.thread_block().unwrap();
        let mut child = spawn(&["sleep", "60"]).unwrap();
        let pid = child.pid();
        child.release().unwrap();
        assert_eq!(SigSet::thread_get_mask().unwrap(), blocked, "the tool keeps its own");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        let bit = |signal: Signal| 1 << (signal as u32 - 1);
        assert_eq!((mask("SigBlk:"), mask("SigCgt:")), (0, 0));
        assert_eq!(mask("SigIgn:") & (bit(Signal::SIGPIPE) | bit(Signal::SIGUSR2)), bit(Signal::SIGUSR2));
        let links =
            fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|fd| fs::read_link(fd.unwrap().path()));
        let links: Vec<PathBuf> = links.map(Result::unwrap).collect();
        assert!(!links.is_empty() && !links.contains(&own), "{links:?}");
        let gate = |link: &PathBuf| link.to_string_lossy().contains("pidfd");
        assert!(!links.iter().any(gate), "{links:?}");
        kill(Pid::from_raw(child.pid), Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        fs::remove_file(own).unwrap();
    }
}
