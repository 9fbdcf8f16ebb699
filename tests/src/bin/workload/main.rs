//! Known work for the tests, exact to the count: they run it under a tool and compare.
//!
//! It prints its process id first. With `--gate` it then waits for a line or the end of stdin, so that a
//! tool can attach before anything happens; with `--hold` it says `done` after its work and waits again,
//! so that the kernel's account of it can be read. It needs no other program: it also runs in bare VMs.

mod compat;
mod opens;
mod sched;
mod stage;
mod uring;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use stage::Stage;

/// What test harnesses take for "skipped".
const UNSUPPORTED: u8 = 77;

const USAGE: &str = "usage: workload [OPTION VALUE..].. COMMAND
  opens ROUTE COUNT PATH.. [--flags OCTAL] [--mode OCTAL] [--threads N]
                              COUNT opens of each PATH, in each of N threads
  spin SECONDS [THREADS]      always busy
  nap COUNT MICROSECONDS      COUNT sleeps
  threads COUNT               COUNT threads, 64 at a time, that sleep 1 ms each
  pingpong COUNT              two threads hand a byte to and fro over pipes
  noise                       opens and naps until it is killed
routes: open creat openat openat-dirfd openat2 by-handle bad-pointer
        uring-openat uring-openat2 uring-async uring-direct
        compat-open compat-creat compat-openat compat-openat2
options: --gate and --hold (no value), --comm NAME, --round-robin PRIORITY, --uid N,
         --cwd DIR, --chroot DIR, --bind SOURCE:DIR";

/// How a command ended that did not fail.
pub enum Done {
    Ok,
    /// This kernel or machine cannot do it.
    Unsupported(String),
}

pub type Outcome = Result<Done, String>;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match run(&args) {
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

fn run(args: &[OsString]) -> Outcome {
    let (stage, rest) = Stage::set(args)?;
    // Paths are bytes and stay so; no other word of a command is anything but text.
    let texts: Vec<&str> = rest.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    match texts.as_slice() {
        ["opens", route, count, ..] => {
            let rest: Vec<&OsStr> = rest[3..].iter().map(OsString::as_os_str).collect();
            opens::run(route, number(count)?, &rest, &stage)
        }
        ["spin", seconds] => sched::spin(decimal(seconds)?, 1, &stage),
        ["spin", seconds, threads] => sched::spin(decimal(seconds)?, number(threads)?, &stage),
        ["nap", count, micros] => sched::nap(number(count)?, number(micros)?, &stage),
        ["threads", count] => sched::threads(number(count)?, &stage),
        ["pingpong", count] => sched::pingpong(number(count)?, &stage),
        ["noise"] => sched::noise(&stage),
        _ => Err(USAGE.to_owned()),
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("not a whole number: {text}"))
}

fn decimal(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}
