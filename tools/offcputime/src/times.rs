//! When the run began and its parts ended, as the programs count it.

use anyhow::{Context as _, Result};
use common::maps;
use libbpf_rs::{MapCore as _, MapFlags, Object};

/// `times` of `bpf/lib/offcpu_task.bpf.h`.
#[derive(Clone, Copy, Default)]
pub struct Times {
    pub began: u64,
    pub until: u64,
    pub forgot: u64,
}

impl Times {
    /// What was seen: by the readings of the clock that the programs count from and to.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.until.saturating_sub(self.began) as f64 / 1e9
    }

    pub fn set(self, object: &Object) -> Result<()> {
        let bytes: Vec<u8> =
            [self.began, self.until, self.forgot].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let map = maps::find(object, ".data.times")?;
        map.update(&0_u32.to_ne_bytes(), &bytes, MapFlags::ANY).context("cannot set the times of the run")
    }
}
