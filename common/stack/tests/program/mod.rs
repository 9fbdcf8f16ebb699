//! Programs whose functions are at addresses that they say themselves.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic here is a failed test")]
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use stack::{Frame, Symbols};

/// Compiles one of the programs beside this file to `path`. None: there is no compiler.
pub fn compile(source: &str, path: &Path, flags: &[&str]) -> Option<()> {
    let compiler = if source.ends_with(".cc") { "c++" } else { "cc" };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program").join(source);
    let mut command = Command::new(compiler);
    command.arg(&source).args(flags).arg("-o").arg(path);
    match command.status() {
        Ok(status) => assert!(status.success(), "{command:?}"),
        Err(_) => return None,
    }
    Some(())
}

/// Runs a command to its end.
pub fn must(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}");
}

/// A program that has said where its functions are, and waits.
pub struct Started {
    child: Child,
    /// Names and addresses, in their order.
    pub said: Vec<(String, u64)>,
}

impl Started {
    pub fn new(command: &mut Command) -> Started {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut started = Started { child, said: Vec::new() };
        started.listen();
        started
    }

    /// Reads on until the program is ready.
    pub fn listen(&mut self) {
        let stdout = self.child.stdout.as_mut().unwrap();
        for line in BufReader::new(stdout).lines() {
            let line = line.unwrap();
            let (name, address) = line.split_once(' ').unwrap();
            if name == "ready" {
                return;
            }
            let address = address.strip_prefix("0x").unwrap_or(address);
            self.said.push((name.to_owned(), u64::from_str_radix(address, 16).unwrap()));
        }
        panic!("the program ended before it was ready");
    }

    /// A line for a program that waits for one.
    pub fn go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn address(&self, name: &str) -> u64 {
        self.said.iter().find(|(said, _)| said == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    /// The addresses of this name, in their order.
    pub fn all(&self, name: &str) -> Vec<u64> {
        self.said.iter().filter(|(said, _)| said == name).map(|(_, address)| *address).collect()
    }

    pub fn end(mut self) -> (u32, Vec<(String, u64)>) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
        (self.pid(), std::mem::take(&mut self.said))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The frame of the one address.
pub fn one(symbols: &mut Symbols, pid: u32, address: u64) -> Frame {
    let mut frames = symbols.user(pid, &[&[address]]);
    Frame::clone(&frames.remove(0).remove(0))
}

pub fn label(symbols: &mut Symbols, pid: u32, address: u64) -> String {
    one(symbols, pid, address).label().into_owned()
}

/// Notes a process, and waits until that is done.
pub fn note(symbols: &mut Symbols, pid: u32) {
    symbols.note(pid);
    assert!(symbols.user(pid, &[]).is_empty());
}
