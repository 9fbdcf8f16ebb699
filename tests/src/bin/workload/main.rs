//! Known work for the tests, exact to the count: they run it under a tool and compare.
//!
//! It prints its process id first. With `--gate` it then waits for a line or the end of stdin, so that a
//! tool can attach before anything happens. It needs no other program: it also runs in bare VMs.

mod compat;
mod opens;
mod sched;
mod uring;

use std::io::{self, BufRead as _, Write as _};
use std::process::ExitCode;

/// What test harnesses take for "skipped".
const UNSUPPORTED: u8 = 77;

const USAGE: &str = "usage: workload [--gate] COMMAND
  opens ROUTE COUNT PATH.. [--flags OCTAL] [--mode OCTAL]   COUNT opens of each PATH
  spin SECONDS                one thread, always busy
  nap COUNT MICROSECONDS      COUNT sleeps
  threads COUNT               COUNT threads, 64 at a time, that sleep 1 ms each
  pingpong COUNT              two threads hand a byte to and fro over pipes
routes: open creat openat openat-dirfd openat2 by-handle bad-pointer
        uring-openat uring-openat2 uring-async uring-direct
        compat-open compat-creat compat-openat compat-openat2";

/// How a command ended that did not fail.
pub enum Done {
    Ok,
    /// This kernel or machine cannot do it.
    Unsupported(String),
}

pub type Outcome = Result<Done, String>;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let gated = args.first().is_some_and(|arg| arg == "--gate");
    if gated {
        args.remove(0);
    }
    match run(&args, gated) {
        Ok(Done::Ok) => ExitCode::SUCCESS,
        Ok(Done::Unsupported(what)) => {
            eprintln!("workload: not supported here: {what}");
            ExitCode::from(UNSUPPORTED)
        }
        Err(error) => {
            eprintln!("workload: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String], gated: bool) -> Outcome {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let ready = || gate(gated);
    match words.as_slice() {
        ["opens", route, count, rest @ ..] => opens::run(route, number(count)?, rest, &ready),
        ["spin", seconds] => sched::spin(decimal(seconds)?, &ready),
        ["nap", count, micros] => sched::nap(number(count)?, number(micros)?, &ready),
        ["threads", count] => sched::threads(number(count)?, &ready),
        ["pingpong", count] => sched::pingpong(number(count)?, &ready),
        _ => Err(USAGE.to_owned()),
    }
}

/// Called by each command when it has everything ready for its work.
fn gate(gated: bool) -> Result<(), String> {
    say(&std::process::id().to_string())?;
    if gated {
        let mut line = Vec::new();
        io::stdin().lock().read_until(b'\n', &mut line).map_err(|e| format!("stdin: {e}"))?;
    }
    Ok(())
}

/// One line to stdout, at once.
pub fn say(line: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| format!("stdout: {e}"))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("not a whole number: {text}"))
}

fn decimal(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}
