//! Something for every tool to see: a process that works and naps until the test is done.

use std::process::{Child, Command, Stdio};

use crate::env;

/// Killed on drop.
pub struct Noise(Child);

impl Noise {
    /// Opens a file that is there and one that is not, and sleeps a millisecond, over and over.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it starts a process")]
    pub fn new() -> Noise {
        let mut command = Command::new(env::program("workload"));
        command.arg("noise").stdin(Stdio::null()).stdout(Stdio::null());
        Noise(command.spawn().unwrap())
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
