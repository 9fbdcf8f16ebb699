//! The counted work of src/bin/workload as a child process.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::drain::Drain;
use crate::{cpu, env, eventually};

/// What `workload` ends with when this machine cannot do what it was asked for.
const UNSUPPORTED: i32 = 77;

/// Work to be started. It waits at its gate, and with `hold` again when it is done.
pub struct Work {
    options: Vec<OsString>,
    args: Vec<OsString>,
    cpu: Option<usize>,
    before: Vec<OsString>,
}

impl Work {
    /// A command of `workload`, separated by spaces.
    #[must_use]
    pub fn new(words: &str) -> Work {
        let args = words.split_whitespace().map(OsString::from).collect();
        Work { options: Vec::new(), args, cpu: None, before: Vec::new() }
    }

    /// One more argument, as it is.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Work {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More of them.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Work {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// COUNT opens of a file.
    #[must_use]
    pub fn opens(route: &str, count: u64, path: impl AsRef<OsStr>) -> Work {
        Work::new("opens").arg(route).arg(count.to_string()).arg(path)
    }

    /// An option of `workload` itself: `--comm NAME`, `--uid N`, `--cwd DIR`, ...
    #[must_use]
    pub fn option(mut self, name: &str, value: impl AsRef<OsStr>) -> Work {
        self.options.extend([name.into(), value.as_ref().to_owned()]);
        self
    }

    #[must_use]
    pub fn comm(self, name: &str) -> Work {
        self.option("--comm", name)
    }

    /// When done it waits, so that the kernel's account of it can still be read.
    #[must_use]
    pub fn hold(mut self) -> Work {
        self.options.push("--hold".into());
        self
    }

    #[must_use]
    pub fn on_cpu(mut self, cpu: usize) -> Work {
        self.cpu = Some(cpu);
        self
    }

    /// Runs it by another program: `unshare --fork --pid`.
    #[must_use]
    pub fn under(mut self, words: &str) -> Work {
        self.before = words.split_whitespace().map(OsString::from).collect();
        self
    }

    /// The words to put behind a tool's `--`: neither gate nor hold.
    #[must_use]
    #[track_caller]
    pub fn words(self) -> Vec<OsString> {
        let mut words = self.before;
        words.push(env::program("workload").into_os_string());
        words.extend(self.options.into_iter().chain(self.args));
        words
    }

    /// Starts it, up to its gate.
    ///
    /// # Errors
    /// This machine cannot do it; why.
    #[track_caller]
    pub fn start(mut self) -> Result<Workload, String> {
        self.options.insert(0, "--gate".into());
        let pinned = self.cpu;
        let words = self.words();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(cpu) = pinned {
            // SAFETY: one system call.
            unsafe { command.pre_exec(move || cpu::pin(cpu)) };
        }
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{words:?}: {e}"));
        let mut work = Workload {
            pid: 0,
            stdin: child.stdin.take(),
            stdout: Some(Drain::new(child.stdout.take().unwrap(), None)),
            stderr: Some(Drain::new(child.stderr.take().unwrap(), None)),
            child,
        };
        match work.lines(1).first() {
            Some(pid) => work.pid = pid.parse().expect("workload says its process id"),
            None => return Err(work.finish().expect_err("it ended before its gate")),
        }
        if work.pid == work.child.id() {
            cpu::settle(work.pid);
        }
        Ok(work)
    }
}

/// Work that is under way. Killed on drop.
pub struct Workload {
    pid: u32,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<Drain>,
    stderr: Option<Drain>,
}

impl Workload {
    /// As it numbers itself: in its own PID namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Of the child that was started, which is another one under `unshare`.
    #[must_use]
    pub fn outer_pid(&self) -> u32 {
        self.child.id()
    }

    /// Opens the gate.
    #[track_caller]
    pub fn go(&mut self) {
        let stdin = self.stdin.as_mut().expect("not finished");
        stdin.write_all(b"go\n").expect("the workload has gone");
    }

    fn lines(&self, wanted: usize) -> Vec<String> {
        let text = self.stdout.as_ref().expect("not finished").wait_lines(wanted);
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    /// Waits until all is done (`hold`). It stays there, asleep.
    #[track_caller]
    pub fn wait_done(&self) {
        for wanted in 2.. {
            let lines = self.lines(wanted);
            if lines.iter().any(|line| line == "done") {
                if self.pid == self.child.id() {
                    cpu::settle(self.pid);
                }
                return;
            }
            assert!(lines.len() >= wanted, "the workload ended or takes too long: {lines:?}");
        }
    }

    /// Waits for its end; what it said after its process id.
    ///
    /// # Errors
    /// This machine cannot do it; why.
    #[track_caller]
    pub fn finish(mut self) -> Result<Vec<String>, String> {
        drop(self.stdin.take());
        let status = eventually(env::patience(), || self.child.try_wait().unwrap());
        let status = status.unwrap_or_else(|| panic!("the workload does not end: {:?}", self.lines(0)));
        let stderr = self.stderr.take().unwrap().finish();
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        match status.code() {
            Some(0) => Ok(self.lines(usize::MAX).split_off(1)),
            Some(UNSUPPORTED) => Err(stderr),
            _ => panic!("workload: {status}: {stderr}"),
        }
    }

    /// Opens the gate and waits for the end.
    ///
    /// # Errors
    /// As [`Workload::finish`].
    #[track_caller]
    pub fn run(mut self) -> Result<Vec<String>, String> {
        self.go();
        self.finish()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
