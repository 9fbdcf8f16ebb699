//! Reading BPF maps. Batches are read by the plain system calls: libbpf-rs 0.27's `lookup_batch` loses
//! entries of hash maps whenever the kernel ends a batch at a bucket's border.

use std::io;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, bail};
use libbpf_rs::{Map, MapCore, MapFlags, Object, libbpf_sys};

/// # Errors
/// The object has no such map.
pub fn find<'a>(object: &'a Object, name: &str) -> Result<Map<'a>> {
    object.maps().find(|map| map.name() == name).with_context(|| format!("no map {name} in the BPF object"))
}

#[must_use]
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}

/// Takes every entry out of a hash that no program writes to any more, and hands it to `each`.
///
/// # Errors
/// The kernel refuses, or `each` does.
pub fn drain(map: &dyn MapCore, mut each: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    let (key_size, value_size) = (map.key_size() as usize, map.value_size() as usize);
    let mut room: u32 = 4096;
    let mut at: Option<u32> = None;
    loop {
        let mut keys = vec![0; key_size * room as usize];
        let mut values = vec![0; value_size * room as usize];
        let mut next = 0_u32;
        let mut count = room;
        // SAFETY: keys and values have room for `count` elements; for a hash the position is a u32.
        let status = unsafe {
            libbpf_sys::bpf_map_lookup_and_delete_batch(
                map.as_fd().as_raw_fd(),
                at.as_mut().map_or(std::ptr::null_mut(), |at| (&raw mut *at).cast()),
                (&raw mut next).cast(),
                keys.as_mut_ptr().cast(),
                values.as_mut_ptr().cast(),
                &raw mut count,
                std::ptr::null(),
            )
        };
        let ended = match -status {
            0 => false,
            libc::ENOENT => true,
            // One bucket alone holds more than the batch: nothing was taken.
            libc::ENOSPC if room < map.max_entries() => {
                room = room.saturating_mul(2);
                continue;
            }
            errno => {
                bail!("cannot read map {}: {}", map.name().display(), io::Error::from_raw_os_error(errno))
            }
        };
        for (key, value) in
            keys.chunks_exact(key_size).zip(values.chunks_exact(value_size)).take(count as usize)
        {
            each(key, value)?;
        }
        if ended {
            return Ok(());
        }
        at = Some(next);
    }
}

/// Puts `inner` into the only slot of a map of maps. When this returns, no program uses the former inner
/// map any more: the kernel waits for them since 4.20, 1ae80cf31938 ("bpf: wait for running BPF programs
/// when updating map-in-map").
///
/// # Errors
/// The kernel refuses.
pub fn point_to(outer: &dyn MapCore, inner: &dyn MapCore) -> Result<()> {
    let fd = inner.as_fd().as_raw_fd().to_ne_bytes();
    outer.update(&0_u32.to_ne_bytes(), &fd, MapFlags::ANY).context("cannot put one map into another")
}

/// Two sets of one map. Programs write to the one that `active` points to.
pub struct Pair<'a> {
    active: &'a dyn MapCore,
    sets: [&'a dyn MapCore; 2],
    current: usize,
}

impl<'a> Pair<'a> {
    /// Before the run: sends the programs to `first`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(active: &'a dyn MapCore, first: &'a dyn MapCore, second: &'a dyn MapCore) -> Result<Pair<'a>> {
        point_to(active, first)?;
        Ok(Pair { active, sets: [first, second], current: 0 })
    }

    /// Sends the programs to the other set and gives the one they have left, complete and at rest. It has
    /// to be emptied before the next call.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn flip(&mut self) -> Result<&'a dyn MapCore> {
        let left = self.sets[self.current];
        self.current ^= 1;
        point_to(self.active, self.sets[self.current])?;
        Ok(left)
    }
}
