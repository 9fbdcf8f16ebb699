//! The reading end of a BPF ring buffer, as kernel/bpf/ringbuf.c lays it out for user space: a page that is
//! ours with the position of the reader, one with that of the programs, and the data.
//!
//! libbpf has one, too. It maps the data twice in a row, so that a record is never cut at the end, and every
//! page of that counts as resident: ours costs half of it. Records are copied anyway (events.rs).

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::{io, slice};

use anyhow::{Context as _, Result, ensure};
use libbpf_rs::{MapCore, MapType};
use nix::unistd::{SysconfVar, sysconf};

/// Before each record: its length with two flags, and where it belongs to.
const HEADER: usize = 8;
/// A program is still at work on it: it and what follows is not there yet.
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

pub struct Ring {
    reader: Mapping,
    /// The position of the programs in the first page, then the data.
    written: Mapping,
    page: usize,
    /// Of the data, a power of two.
    size: usize,
}

impl Ring {
    /// # Errors
    /// The map is no ring buffer, or cannot be mapped.
    pub fn new(map: &dyn MapCore) -> Result<Ring> {
        ensure!(map.map_type() == MapType::RingBuf, "map {} is no ring buffer", map.name().display());
        let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|page| usize::try_from(page).ok());
        let page = page.context("sysconf(_SC_PAGESIZE)")?;
        let size = map.max_entries() as usize;
        let reader = Mapping::new(map.as_fd(), 0, page, libc::PROT_READ | libc::PROT_WRITE);
        let written = Mapping::new(map.as_fd(), page, page + size, libc::PROT_READ);
        let failed = "cannot map the ring buffer";
        Ok(Ring { reader: reader.context(failed)?, written: written.context(failed)?, page, size })
    }

    /// Hands out at most so many records, each in one or two pieces, and makes their room free. Returns how
    /// many there were.
    pub fn take(&mut self, most: usize, mut each: impl FnMut(&[u8], &[u8])) -> usize {
        let end = self.written.word(0).load(Ordering::Acquire);
        let mut at = self.reader.word(0).load(Ordering::Relaxed); // nobody else writes it
        let mut taken = 0;
        while at < end && taken < most {
            let start = self.page + (at as usize & (self.size - 1));
            let header = self.written.half_word(start).load(Ordering::Acquire);
            if header & BUSY != 0 {
                break;
            }
            let len = (header & !DISCARDED) as usize;
            if header & DISCARDED == 0 {
                let body = start + HEADER;
                let whole = len.min(self.page + self.size - body);
                each(self.written.bytes(body, whole), self.written.bytes(self.page, len - whole));
                taken += 1;
            }
            at += (HEADER + len).next_multiple_of(8) as u64;
        }
        // Only now may the programs write there.
        self.reader.word(0).store(at, Ordering::Release);
        taken
    }
}

struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, offset: usize, len: usize, access: libc::c_int) -> io::Result<Mapping> {
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe {
            let offset = offset as libc::off_t;
            libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, fd.as_raw_fd(), offset)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Mapping { start, len })
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: see at(); eight bytes, aligned as pages are, and atomic on the kernel's side, too.
        unsafe { AtomicU64::from_ptr(self.at(offset).cast()) }
    }

    fn half_word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as above; records are aligned to eight bytes.
        unsafe { AtomicU32::from_ptr(self.at(offset).cast()) }
    }

    /// Of a record that is complete and not yet given back.
    fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        let len = len.min(self.len - offset); // always; were it not, we would read what is not ours
        // SAFETY: mapped, and nobody writes there before the reader's position has passed it.
        unsafe { slice::from_raw_parts(self.at(offset), len) }
    }

    /// Offsets are 0, of the data's first byte, or of a multiple of eight in a power of two of bytes behind it.
    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.len);
        // SAFETY: inside the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, to which no reference outlives us.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
