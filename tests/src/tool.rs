//! A tool of this project as a child process.

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::drain::Drain;
use crate::ended::Ended;
use crate::env;
use crate::running::Running;

/// A tool to be started.
pub struct Tool {
    name: String,
    /// What the environment wants of every tool.
    forced: Vec<String>,
    program: OsString,
    before: Vec<OsString>,
    args: Vec<OsString>,
    setup: Vec<Box<dyn FnMut() -> io::Result<()> + Send + Sync>>,
    lines: Option<usize>,
    stdout: Option<Stdio>,
}

impl Tool {
    /// From the folder of the tools.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Tool {
        let probe = env::probe().map(|probe| ["--probe".to_owned(), probe]);
        let btf = env::btf().map(|file| ["--btf".to_owned(), file]);
        let forced = probe.into_iter().chain(btf).flatten().collect();
        Tool { forced, ..Tool::at(name, env::program(name).as_os_str()) }
    }

    /// Some other program. It is not told which rung to take.
    #[must_use]
    pub fn at(name: &str, program: &OsStr) -> Tool {
        Tool {
            name: name.to_owned(),
            forced: Vec::new(),
            program: program.to_owned(),
            before: Vec::new(),
            args: Vec::new(),
            setup: Vec::new(),
            lines: None,
            stdout: None,
        }
    }

    /// The same tool where another user may run it: a copy in that folder.
    #[must_use]
    #[track_caller]
    pub fn copied_to(mut self, dir: &Path) -> Tool {
        let copy = dir.join(&self.name);
        std::fs::copy(&self.program, &copy).unwrap_or_else(|e| panic!("copy to {}: {e}", copy.display()));
        self.program = copy.into_os_string();
        self
    }

    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Tool {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Tool {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Arguments separated by spaces.
    #[must_use]
    pub fn words(self, words: &str) -> Tool {
        self.args(words.split_whitespace())
    }

    /// Runs it by another program: `timeout 2`.
    #[must_use]
    pub fn under(mut self, words: &str) -> Tool {
        self.before = words.split_whitespace().map(OsString::from).collect();
        self
    }

    /// Closes its stdout after so many lines, as `| head -1` does.
    #[must_use]
    pub fn head(mut self, lines: usize) -> Tool {
        self.lines = Some(lines);
        self
    }

    #[must_use]
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Tool {
        self.stdout = Some(to.into());
        self
    }

    /// Something to do in the child before it becomes the tool: system calls only, no memory.
    #[must_use]
    pub fn setup(mut self, what: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> Tool {
        self.setup.push(Box::new(what));
        self
    }

    /// A standard descriptor that is not there, as `<&-` and `>&-` make it.
    #[must_use]
    pub fn without_fd(self, fd: i32) -> Tool {
        self.setup(move || {
            // SAFETY: closes one of the child's own descriptors.
            unsafe { libc::close(fd) };
            Ok(())
        })
    }

    /// In a process group of its own, as a shell starts it, for [`Running::ctrl_c`].
    #[must_use]
    pub fn in_own_group(self) -> Tool {
        self.setup(|| {
            // SAFETY: numbers only.
            match unsafe { libc::setpgid(0, 0) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })
    }

    fn launch(self, ready: Option<PipeWriter>) -> Running {
        let mut words: Vec<OsString> = self.before;
        words.push(self.program);
        let fd = ready.as_ref().map(|pipe| pipe.as_raw_fd());
        // First of all: behind `--` they would be the command's.
        words.extend(self.forced.into_iter().map(OsString::from));
        words.extend(
            fd.into_iter().flat_map(|fd| ["--ready-fd".to_owned(), fd.to_string()]).map(OsString::from),
        );
        words.extend(self.args);

        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stderr(Stdio::piped());
        command.stdout(self.stdout.unwrap_or_else(Stdio::piped));
        let mut setup = self.setup;
        let child_setup = move || {
            if let Some(fd) = fd {
                // SAFETY: fcntl on a descriptor that this process has; it is to survive the exec.
                unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
            }
            setup.iter_mut().try_for_each(|step| step())
        };
        // SAFETY: the steps make system calls only and allocate nothing.
        unsafe { command.pre_exec(child_setup) };
        let line: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let line = line.join(" ");
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{line}: {e}"));
        drop(ready); // the child has it now: its end is the end of the pipe
        let lines = self.lines;
        let stdout = child.stdout.take().map(|pipe| Drain::new(pipe, lines));
        let stderr = Drain::new(child.stderr.take().unwrap(), None);
        Running::new(self.name, line, child, stdout, stderr)
    }

    /// Starts it and waits until it has attached everything.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Running {
        let (reader, writer) = io::pipe().unwrap();
        let running = self.launch(Some(writer));
        if !is_ready(reader) {
            panic!("it never said that it is ready\n{}", running.kill_now().story());
        }
        running
    }

    /// Starts it and does not wait.
    #[must_use]
    pub fn launch_only(self) -> Running {
        self.launch(None)
    }

    /// Runs it to its end, which it comes to by itself.
    #[track_caller]
    pub fn run(self) -> Ended {
        self.launch(None).wait()
    }
}

/// Reads "ready\n" and the end of the pipe.
fn is_ready(mut pipe: PipeReader) -> bool {
    let start = Instant::now();
    let mut text = Vec::new();
    loop {
        let mut poll = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let left = env::patience().saturating_sub(start.elapsed()).as_millis();
        // SAFETY: one pollfd, which outlives the call.
        let n = unsafe { libc::poll(&raw mut poll, 1, left.try_into().unwrap_or(i32::MAX)) };
        let mut chunk = [0; 64];
        match if n == 1 { pipe.read(&mut chunk) } else { Ok(0) } {
            Ok(0) | Err(_) => return text == b"ready\n",
            Ok(n) => text.extend_from_slice(&chunk[..n]),
        }
    }
}
