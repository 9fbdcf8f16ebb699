//! Runs a tool with less than root has.

use std::io;

use crate::tool::Tool;

const NOBODY: u32 = 65534;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

impl Tool {
    /// As nobody, without any capability. (The program has to be where nobody can reach it.)
    #[must_use]
    pub fn as_nobody(self) -> Tool {
        self.setup(|| become_nobody(0))
    }

    /// As nobody with CAP_BPF and CAP_PERFMON, as a service manager would give them.
    #[must_use]
    pub fn with_bpf_capabilities(self) -> Tool {
        self.setup(|| become_nobody(1 << CAP_BPF | 1 << CAP_PERFMON))
    }

    /// Still uid 0, but without any capability, as in a container.
    #[must_use]
    pub fn as_powerless_root(self) -> Tool {
        self.setup(|| {
            for cap in 0..=63 {
                // SAFETY: a number; the kernel refuses those that it does not know.
                unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) };
            }
            set_capabilities(0)
        })
    }
}

/// Between fork and exec: system calls only.
fn become_nobody(capabilities: u64) -> io::Result<()> {
    // SAFETY: prctl with numbers only. Without it setresuid() would take all capabilities.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) })?;
    // SAFETY: an empty list of groups.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: numbers only.
    check(unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) })?;
    // SAFETY: numbers only.
    check(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) })?;
    set_capabilities(capabilities)?;
    for cap in (0..64).filter(|cap| capabilities >> cap & 1 == 1) {
        // Ambient: the exec of an ordinary file keeps it.
        // SAFETY: numbers only.
        check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, cap, 0, 0) })?;
    }
    Ok(())
}

fn set_capabilities(wanted: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: VERSION_3, pid: 0 };
    let (low, high) = (wanted as u32, (wanted >> 32) as u32);
    // Effective, permitted, inheritable: the low words, then the high ones.
    let data = [[low; 3], [high; 3]];
    // SAFETY: version 3 takes this header and two such triples.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    check(done as i32)
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
