//! 32-bit system calls from this 64-bit process: `int 0x80` on x86, with the memory they point to below
//! 4 GiB. Other architectures need a 32-bit program for it, so there it is not supported.

use std::ffi::CStr;

use crate::opens::{How, NotHere, Opener};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::ffi::CStr;
    use std::io;

    /// Two pages that 32-bit pointers reach.
    pub struct LowMemory(*mut u8);

    const SIZE: usize = 8192;
    /// Where the name begins; what is before it is for arguments passed by address.
    const NAME: usize = 256;

    impl LowMemory {
        pub fn new(path: &CStr) -> Result<LowMemory, String> {
            let bytes = path.to_bytes_with_nul();
            if bytes.len() > SIZE - NAME {
                return Err("the path is too long".to_owned());
            }
            // SAFETY: a new private mapping, wherever the kernel likes it below 2 GiB.
            let page = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    SIZE,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
                    -1,
                    0,
                )
            };
            if page == libc::MAP_FAILED {
                return Err(format!("mmap: {}", io::Error::last_os_error()));
            }
            let page: *mut u8 = page.cast();
            // SAFETY: the mapping has SIZE bytes and the path fits behind NAME, as checked.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), page.add(NAME), bytes.len()) };
            Ok(LowMemory(page))
        }

        pub fn name(&self) -> u32 {
            self.start() + NAME as u32
        }

        /// A `struct open_how`, 24 bytes.
        pub fn how(&self, flags: u64, mode: u64) -> u32 {
            // SAFETY: the mapping is page-aligned, writable and larger than three words.
            unsafe { self.0.cast::<[u64; 3]>().write([flags, mode, 0]) };
            self.start()
        }

        fn start(&self) -> u32 {
            self.0 as usize as u32
        }
    }

    pub fn call(nr: u32, args: [u32; 4]) -> i64 {
        let result: i32;
        // SAFETY: the kernel takes the five registers and gives back eax; r8 to r11 are clobbered on
        // old kernels. LLVM keeps rbx for itself, hence the exchange around the call.
        unsafe {
            std::arch::asm!(
                "xchg rbx, {first}",
                "int 0x80",
                "xchg rbx, {first}",
                first = inout(reg) u64::from(args[0]) => _,
                inout("eax") nr => result,
                in("ecx") args[1],
                in("edx") args[2],
                in("esi") args[3],
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        i64::from(result)
    }

    extern "C" fn no_such_gate(_: libc::c_int) {
        // SAFETY: _exit may be called in a signal handler.
        unsafe { libc::_exit(i32::from(crate::UNSUPPORTED)) };
    }

    /// A kernel without 32-bit calls answers `int 0x80` with SIGSEGV.
    pub fn expect_refusal() {
        let handler: extern "C" fn(libc::c_int) = no_such_gate;
        // SAFETY: the handler calls nothing but _exit.
        unsafe { libc::signal(libc::SIGSEGV, handler as *const () as libc::sighandler_t) };
    }
}

#[cfg(target_arch = "x86_64")]
pub fn opener(route: &str, path: &CStr, how: How) -> Result<Opener, NotHere> {
    const AT_FDCWD: u32 = libc::AT_FDCWD as u32;
    let memory = x86::LowMemory::new(path).map_err(NotHere::Failed)?;
    let name = memory.name();
    let (flags, mode) = (how.flags as u32, how.mode);
    x86::expect_refusal();
    Ok(match route {
        "compat-open" => Box::new(move || x86::call(5, [name, flags, mode, 0])),
        "compat-creat" => Box::new(move || x86::call(8, [name, mode, 0, 0])),
        "compat-openat" => Box::new(move || x86::call(295, [AT_FDCWD, name, flags, mode])),
        "compat-openat2" => {
            let mode = if how.flags & libc::O_CREAT == 0 { 0 } else { mode.into() };
            let how = memory.how(flags.into(), mode);
            Box::new(move || x86::call(437, [AT_FDCWD, name, how, 24]))
        }
        _ => return Err(NotHere::Failed(format!("no such route: {route}"))),
    })
}

#[cfg(not(target_arch = "x86_64"))]
pub fn opener(_: &str, _: &CStr, _: How) -> Result<Opener, NotHere> {
    Err(NotHere::Unsupported("32-bit calls from a 64-bit program".to_owned()))
}
