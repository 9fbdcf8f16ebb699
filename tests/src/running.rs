//! A tool that runs.

use std::cell::OnceCell;
use std::io;
use std::process::{Child, ExitStatus};

use crate::drain::Drain;
use crate::ended::Ended;
use crate::{env, eventually, wait_until};

/// Killed on drop, so that no failed test leaves one behind.
pub struct Running {
    tool: String,
    line: String,
    child: Child,
    stdout: Option<Drain>,
    stderr: Option<Drain>,
    ended: Option<ExitStatus>,
}

impl Running {
    pub(crate) fn new(
        tool: String,
        line: String,
        child: Child,
        stdout: Option<Drain>,
        stderr: Drain,
    ) -> Running {
        Running { tool, line, child, stdout, stderr: Some(stderr), ended: None }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    #[track_caller]
    pub fn signal(&self, signal: i32) {
        self.kill(self.child.id() as i32, signal);
    }

    /// What the terminal sends to everybody in the foreground.
    #[track_caller]
    pub fn ctrl_c(&self) {
        self.kill(-(self.child.id() as i32), libc::SIGINT);
    }

    #[track_caller]
    fn kill(&self, whom: i32, signal: i32) {
        // SAFETY: numbers only; the child has not been waited for, so its number is still its own.
        let done = unsafe { libc::kill(whom, signal) };
        assert_eq!(done, 0, "{}: kill: {}", self.line, io::Error::last_os_error());
    }

    /// Stopped, not merely told to stop.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.pid());
        wait_until("the tool is stopped", || {
            let stat = std::fs::read_to_string(&stat).unwrap();
            stat.rsplit_once(')').unwrap().1.trim_start().starts_with('T').then_some(())
        });
    }

    #[track_caller]
    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    /// What it has printed so far.
    #[must_use]
    pub fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.stdout.as_ref().unwrap().so_far()).into_owned()
    }

    /// What it has printed once there are so many lines.
    #[must_use]
    #[track_caller]
    pub fn lines(&self, wanted: usize) -> Vec<String> {
        let text = self.stdout.as_ref().unwrap().wait_lines(wanted);
        let lines: Vec<String> = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
        assert!(
            lines.len() >= wanted,
            "{}: {wanted} lines wanted, there are:\n{}",
            self.line,
            lines.join("\n")
        );
        lines
    }

    #[must_use]
    pub fn is_alive(&mut self) -> bool {
        self.ended = self.ended.or_else(|| self.child.try_wait().unwrap());
        self.ended.is_none()
    }

    /// SIGINT, and what it says then.
    #[must_use]
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.signal(libc::SIGINT);
        self.wait()
    }

    /// Its end, which must come by itself.
    #[must_use]
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        let status = eventually(env::patience(), || (!self.is_alive()).then_some(()));
        if status.is_none() {
            panic!("it does not end\n{}", self.kill_now().story());
        }
        self.wait_any()
    }

    pub(crate) fn kill_now(mut self) -> Ended {
        let _ = self.child.kill();
        self.wait_any()
    }

    fn wait_any(mut self) -> Ended {
        let status = self.ended.unwrap_or_else(|| self.child.wait().unwrap());
        self.ended = Some(status);
        Ended {
            tool: self.tool.clone(),
            line: self.line.clone(),
            pid: self.pid(),
            status,
            stdout: self.stdout.take().map(Drain::finish).unwrap_or_default(),
            stderr: self.stderr.take().map(Drain::finish).unwrap_or_default(),
            parsed: OnceCell::new(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_alive() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
