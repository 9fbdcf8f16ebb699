//! fio, and what it says it has done.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// One run's account of itself.
pub struct Fio(Value);

/// What all runs have: each I/O is one system call of a thread that waits for it, so that "clat" is all of it, by the
/// kernel's clock.
const EVERY: &str = "--name=test --thread --ioengine=psync --direct=1 --bs=4k --invalidate=0 --group_reporting \
                     --clocksource=clock_gettime --percentile_list=50:99 --output-format=json --randrepeat=1";

impl Fio {
    /// On a disk, with these options.
    ///
    /// # Errors
    /// There is no fio here (Debian's package fio).
    #[track_caller]
    pub fn run(disk: &Path, options: &str) -> Result<Fio, String> {
        let mut command = Command::new("fio");
        command.args(EVERY.split_whitespace()).args(options.split_whitespace());
        command.arg("--filename").arg(disk).stdin(Stdio::null());
        let output = command.output().map_err(|e| format!("fio: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        // Remarks may stand before it.
        let json = text.find('{').map_or("", |start| &text[start..]);
        let said: Value = serde_json::from_str(json).unwrap_or_else(|e| panic!("{command:?}: {e}: {text}"));
        Ok(Fio(said["jobs"][0].clone()))
    }

    /// How often it has done this: "read", "write", "trim", "sync".
    #[must_use]
    #[track_caller]
    pub fn total(&self, what: &str) -> u64 {
        let total = &self.0[what]["total_ios"];
        total.as_u64().unwrap_or_else(|| panic!("no total_ios of {what} in {}", self.0))
    }

    /// How long that took, from call to return, in microseconds.
    #[must_use]
    #[track_caller]
    pub fn clat(&self, what: &str, percentile: u32) -> f64 {
        let found = &self.0[what]["clat_ns"]["percentile"][format!("{percentile}.000000")];
        found.as_f64().unwrap_or_else(|| panic!("no clat {percentile} of {what} in {}", self.0)) / 1000.0
    }
}
