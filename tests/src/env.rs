//! Where things are, and what kind of machine this is.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The folder of the tools and of `workload`.
#[must_use]
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("TRACEBELT_BIN") {
        return dir.into();
    }
    let me = std::env::current_exe().unwrap();
    // Test binaries are in target/debug/deps, the others one above.
    let dir = me.parent().unwrap();
    if dir.ends_with("deps") { dir.parent().unwrap().to_owned() } else { dir.to_owned() }
}

/// A program of this workspace.
#[must_use]
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    let path = bin_dir().join(name);
    assert!(path.is_file(), "{} is missing: cargo build --workspace", path.display());
    path
}

/// Every tool: the folders of `tools/`. A new tool joins by being there.
#[must_use]
pub fn tools() -> Vec<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("tools");
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("Cargo.toml").is_file())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no tools in {}", dir.display());
    names
}

/// An emulated machine: counts and sums hold, short times mean nothing.
#[must_use]
pub fn is_tcg() -> bool {
    std::env::var_os("TRACEBELT_TCG").is_some_and(|v| v != "0" && !v.is_empty())
}

/// A PREEMPT_RT kernel: what are interrupts elsewhere are threads there, and get in between.
#[must_use]
pub fn is_rt() -> bool {
    std::fs::read_to_string("/sys/kernel/realtime").is_ok_and(|text| text.trim() == "1")
}

/// Others keep the CPUs busy, too: more tasks than CPUs want to run.
#[must_use]
pub fn is_busy() -> bool {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = load.split(' ').next().unwrap().parse().unwrap();
    load > crate::cpu::allowed().len() as f64
}

/// The rung that every tool is to use.
#[must_use]
pub fn probe() -> Option<String> {
    std::env::var("TRACEBELT_PROBE").ok().filter(|name| !name.is_empty())
}

/// A file with the kernel's types that every tool is to use.
#[must_use]
pub fn btf() -> Option<String> {
    std::env::var("TRACEBELT_BTF").ok().filter(|file| !file.is_empty())
}

/// How long anything may take before it counts as failed. Never waited for in a run that is well.
#[must_use]
pub fn patience() -> Duration {
    Duration::from_secs(if is_tcg() { 60 } else { 30 })
}
