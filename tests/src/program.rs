//! The programs of `programs/`: waits of known length in functions of known names. `build.rs` compiles them.
//!
//! They keep to one protocol: a line when they are ready, a gate, "NAME MICROSECONDS" by their own clock for what
//! they have done, "done", and then they stay, so that the kernel's account of them can be read.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::drain::Drain;
use crate::{cpu, env, eventually};

/// Where it is, if it could be compiled when the tests were.
#[must_use]
pub fn built(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("OUT_DIR")).join(name);
    path.is_file().then_some(path)
}

/// The words to put behind a tool's `--`: `waits` without a gate. It ends with 7.
#[must_use]
#[track_caller]
pub fn waits_now(threads: &str) -> Vec<OsString> {
    let mut words = vec![built("waits").expect("build.rs").into_os_string(), "now".into()];
    words.extend(threads.split_whitespace().map(OsString::from));
    words
}

/// One that runs. Killed on drop.
pub struct Program {
    pid: u32,
    child: Child,
    stdin: ChildStdin,
    stdout: Drain,
}

impl Program {
    /// `waits` with these threads, up to its gate: every thread is there and sleeps.
    #[must_use]
    #[track_caller]
    pub fn waits(threads: &str) -> Program {
        let path = built("waits").expect("build.rs");
        Program::start(Command::new(path).args(threads.split_whitespace()))
    }

    /// Any command that keeps to the protocol, up to its gate.
    #[must_use]
    #[track_caller]
    pub fn start(command: &mut Command) -> Program {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let program = Program { pid: child.id(), child, stdin, stdout: Drain::new(stdout, None) };
        program.lines(1);
        cpu::settle(program.pid);
        program
    }

    /// Under `unshare --fork` the program is the child of what was started.
    #[must_use]
    #[track_caller]
    pub fn of_its_child(mut self) -> Program {
        let children = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = std::fs::read_to_string(children).unwrap();
        self.pid = children.trim().parse().unwrap_or_else(|_| panic!("one child: {children:?}"));
        cpu::settle(self.pid);
        self
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    #[track_caller]
    fn lines(&self, wanted: usize) -> Vec<String> {
        let text = self.stdout.wait_lines(wanted);
        let lines: Vec<String> = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
        assert!(lines.len() >= wanted, "the program ended or takes too long: {lines:?}");
        lines
    }

    /// The thread of that name.
    #[must_use]
    #[track_caller]
    pub fn tid(&self, comm: &str) -> u32 {
        let named = |tid: &u32| {
            let file = format!("/proc/{}/task/{tid}/comm", self.pid);
            std::fs::read_to_string(file).unwrap().trim_end() == comm
        };
        cpu::tids(self.pid).into_iter().find(named).unwrap_or_else(|| panic!("no thread {comm}"))
    }

    /// Opens the gate and waits until all is done; what each wait took by the program's own clock.
    #[track_caller]
    pub fn run(&mut self) -> Said {
        self.stdin.write_all(b"go\n").expect("the program is there");
        for wanted in 2.. {
            let lines = self.lines(wanted);
            if lines.iter().any(|line| line == "done") {
                break;
            }
        }
        cpu::settle(self.pid);
        Said(self.lines(1))
    }

    /// It is gone, and nothing of it is left in /proc.
    pub fn end(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// CPU time and time in the run queue of its threads until now, in microseconds: schedstat.
    #[must_use]
    #[track_caller]
    pub fn spent(&self) -> (f64, f64) {
        let all = cpu::Account::of(self.pid);
        (all.run, all.delay)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        eventually(env::patience(), || self.child.try_wait().ok().flatten());
    }
}

/// What the program has said.
pub struct Said(Vec<String>);

impl Said {
    /// Microseconds of what is called so.
    #[must_use]
    #[track_caller]
    pub fn of(&self, what: &str) -> f64 {
        let value = |line: &String| line.strip_prefix(what)?.strip_prefix(' ')?.parse().ok();
        self.0.iter().find_map(value).unwrap_or_else(|| panic!("no {what} in {:?}", self.0))
    }
}
