//! The harness: starts a tool, starts counted work beside it, and takes apart what the tool prints.
//!
//! Tests never sleep to wait for something. A tool says that it is ready on a pipe (`--ready-fd`), work
//! waits at its gate until then, and what must become true is polled with a deadline as backstop.
//!
//! Environment:
//! - `TRACEBELT_BIN`: the folder of the tools and of `workload`; else that of the test binary.
//! - `TRACEBELT_PROBE`: a rung that every tool is told to use (`--probe`).
//! - `TRACEBELT_BTF`: a file with the kernel's types that every tool is told to use (`--btf`).
//! - `TRACEBELT_TCG`: the machine is emulated: be patient, and believe no short time.
//! - `TRACEBELT_SKIPS`: a file to which each test that could not run here appends its name and why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

pub mod bpf;
pub mod cgroup;
pub mod commands;
pub mod cpu;
pub mod disk;
mod drain;
mod ended;
pub mod env;
pub mod fio;
mod full_pipe;
pub mod help;
pub mod latency;
pub mod modules;
pub mod noise;
pub mod privilege;
pub mod program;
mod record;
mod running;
pub mod settings;
pub mod skip;
pub mod stacks;
mod temp;
mod text;
mod tool;
mod traced;
mod wait;
mod workload;

pub use cgroup::Cgroup;
pub use ended::Ended;
pub use full_pipe::FullPipe;
pub use noise::Noise;
pub use program::Program;
pub use record::{End, Histogram, Record, total};
pub use running::Running;
pub use stacks::{Stack, Waker, stacks, usecs, waits, within};
pub use temp::TempDir;
pub use text::{Block, blocks};
pub use tool::Tool;
pub use traced::{Traced, skipped, trace, trace_all};
pub use wait::{eventually, wait_until};
pub use workload::{Work, Workload};
