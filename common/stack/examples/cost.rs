//! What a search costs: `cargo run --release -p tracebelt-stack --example cost`, as root.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use stack::{Options, Symbols};

const STACKS: usize = 5_000;
const FRAMES: usize = 127;
/// Addresses that differ, of each process.
const DISTINCT: usize = 20_000;

/// The same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

/// Addresses anywhere in the code that a process has mapped.
fn addresses(pid: u32, count: usize, numbers: &mut Numbers) -> Vec<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let code: Vec<(u64, u64)> = maps
        .lines()
        .filter(|line| line.contains(" r-xp ") && line.contains(" /"))
        .map(|line| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap())
        })
        .collect();
    let address = |numbers: &mut Numbers| {
        let (start, end) = code[numbers.next(code.len())];
        start + numbers.next((end - start) as usize) as u64
    };
    (0..count).map(|_| address(numbers)).collect()
}

fn stacks(distinct: &[u64], count: usize, numbers: &mut Numbers) -> Vec<Vec<u64>> {
    (0..count).map(|_| (0..FRAMES).map(|_| distinct[numbers.next(distinct.len())]).collect()).collect()
}

/// Of all threads of this process: the wall clock says more about what else runs.
fn cpu() -> String {
    let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    format!("cpu so far {:.3} s", seconds(used.user_time()) + seconds(used.system_time()))
}

fn slices(stacks: &[Vec<u64>]) -> Vec<&[u64]> {
    stacks.iter().map(Vec::as_slice).collect()
}

fn main() {
    // A process with large libraries that waits: rustc, reading its standard input.
    // (Not to /dev/null: rustc replaces its output, and root's rustc that.)
    let mut rustc = Command::new("rustc")
        .args(["--crate-type=lib", "--crate-name=x", "--emit=metadata", "--out-dir"])
        .arg(std::env::temp_dir())
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mapped = || fs::read_to_string(format!("/proc/{}/maps", rustc.id())).unwrap().contains("libLLVM");
    while !mapped() {
        std::thread::yield_now();
    }
    let mut numbers = Numbers(1);
    let distinct = addresses(rustc.id(), DISTINCT, &mut numbers);
    let all = stacks(&distinct, STACKS, &mut numbers);
    for lines in [false, true] {
        let mut symbols = Symbols::new(Options { lines });
        let start = Instant::now();
        symbols.note(rustc.id());
        println!("lines {lines}: note {:?}", start.elapsed());
        symbols.user(rustc.id(), &[]);
        println!("until noted {:?}, {}", start.elapsed(), cpu());
        for run in ["cold", "warm"] {
            let start = Instant::now();
            let frames = symbols.user(rustc.id(), &slices(&all));
            let took = start.elapsed();
            let named = frames.iter().flatten().filter(|frame| frame.name.is_some()).count();
            println!(
                "user {run}: {took:?}, {}, {:.1}% named",
                cpu(),
                100.0 * named as f64 / (STACKS * FRAMES) as f64
            );
        }
    }
    drop(rustc.stdin.take());
    rustc.wait().unwrap();

    let kallsyms = fs::read_to_string("/proc/kallsyms").unwrap();
    let code = kallsyms.lines().filter(|line| line.contains(" t ") || line.contains(" T "));
    let code: Vec<u64> =
        code.filter_map(|line| u64::from_str_radix(line.split(' ').next()?, 16).ok()).collect();
    let distinct: Vec<u64> = (0..2_000).map(|_| code[numbers.next(code.len())] + 1).collect();
    let all = stacks(&distinct, STACKS, &mut numbers);
    let mut symbols = Symbols::new(Options::default());
    for run in ["cold", "warm"] {
        let start = Instant::now();
        let frames = symbols.kernel(&slices(&all));
        println!("kernel {run}: {:?}, {} ({})", start.elapsed(), cpu(), frames.len());
    }
    let start = Instant::now();
    let own = symbols.kernel(&slices(&all));
    let mut profile = stack::fold::Profile::new();
    for frames in &own {
        *profile.entry(stack::fold::Line::new(b"comm").frames(frames).stack()).or_default() += 1;
    }
    println!("kernel and folded: {:?} ({} lines)", start.elapsed(), profile.len());
}
