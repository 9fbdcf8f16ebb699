//! `programs/waits.c`: waits of known length in functions of known names.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::drain::Drain;
use crate::{TempDir, cpu, env, eventually, wait_until};

/// The program, compiled with frame pointers. Removed on drop.
pub struct Waits {
    dir: TempDir,
}

impl Waits {
    /// # Errors
    /// No C compiler.
    #[track_caller]
    pub fn compile() -> Result<Waits, String> {
        let dir = TempDir::new();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/waits.c");
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-fno-omit-frame-pointer", "-pthread", source, "-o"]).arg(dir.path().join("waits"));
        match cc.output() {
            Err(error) => Err(format!("no C compiler: {error}")),
            Ok(done) if !done.status.success() => panic!("cc: {}", String::from_utf8_lossy(&done.stderr)),
            Ok(_) => Ok(Waits { dir }),
        }
    }

    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("waits")
    }

    /// The words to put behind a tool's `--`: no gate, and it exits with 7.
    #[must_use]
    pub fn words(&self, threads: &str) -> Vec<OsString> {
        let mut words = vec![self.path().into_os_string(), "now".into()];
        words.extend(threads.split_whitespace().map(OsString::from));
        words
    }

    /// Starts it, up to its gate: every thread is there and sleeps.
    #[must_use]
    #[track_caller]
    pub fn start(&self, threads: &str) -> Program {
        let mut command = Command::new(self.path());
        command.args(threads.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let program = Program { child, stdin, stdout: Drain::new(stdout, None) };
        program.lines(1);
        program.settle();
        program
    }
}

/// The program as it runs. Killed on drop.
pub struct Program {
    child: Child,
    stdin: ChildStdin,
    stdout: Drain,
}

impl Program {
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    #[track_caller]
    fn lines(&self, wanted: usize) -> Vec<String> {
        let text = self.stdout.wait_lines(wanted);
        let lines: Vec<String> = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
        assert!(lines.len() >= wanted, "the program ended or takes too long: {lines:?}");
        lines
    }

    #[track_caller]
    fn settle(&self) {
        wait_until("the program sleeps", || {
            let asleep = |tid: &u32| {
                let stat = std::fs::read_to_string(format!("/proc/{}/task/{tid}/stat", self.pid())).unwrap();
                stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" S"))
            };
            cpu::tids(self.pid()).iter().all(asleep).then_some(())
        });
    }

    /// The thread of that name.
    #[must_use]
    #[track_caller]
    pub fn tid(&self, comm: &str) -> u32 {
        let named = |tid: &u32| {
            let file = format!("/proc/{}/task/{tid}/comm", self.pid());
            std::fs::read_to_string(file).unwrap().trim_end() == comm
        };
        cpu::tids(self.pid()).into_iter().find(named).unwrap_or_else(|| panic!("no thread {comm}"))
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
        self.settle();
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
        let mut sums = (0.0, 0.0);
        for tid in cpu::tids(self.pid()) {
            let text = std::fs::read_to_string(format!("/proc/{}/task/{tid}/schedstat", self.pid())).unwrap();
            let numbers: Vec<f64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
            sums = (sums.0 + numbers[0] / 1000.0, sums.1 + numbers[1] / 1000.0);
        }
        sums
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
