//! What this kernel has and what it lets us do: asked by trying, never by version.

use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use anyhow::Result;
use libbpf_rs::btf::types::{Enum, Func, FuncProto, Ptr, Struct, Typedef};
use libbpf_rs::btf::{Btf, BtfType, ReferencesType as _};
use libbpf_rs::libbpf_sys;

use crate::exit::{Kind, fault};
use crate::privilege;

const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The running kernel, after it has let us load and run one small program.
pub struct Kernel {
    btf: Btf<'static>,
    own_tgid: u32,
    storage: OnceCell<bool>,
}

impl Kernel {
    /// Loads a few instructions and runs them once: that tells the privilege, a lockdown that forbids
    /// reading kernel memory, and this process's tgid as the kernel numbers it.
    ///
    /// # Errors
    /// [`Kind::Privilege`] or [`Kind::Unsupported`], with the cause and the cure.
    pub fn probe() -> Result<Kernel> {
        quiet_libbpf();
        let own_tgid = whoami().map_err(|error| privilege::explain(&error, &privilege::Facts::read()))?;
        if !Path::new(VMLINUX_BTF).exists() {
            let what = format!("this kernel has no BTF ({VMLINUX_BTF} is missing): ");
            return Err(fault(Kind::Unsupported, what + "boot one built with CONFIG_DEBUG_INFO_BTF=y"));
        }
        let btf = Btf::from_vmlinux()
            .map_err(|e| fault(Kind::Unsupported, format!("cannot read the kernel's BTF: {e}")))?;
        Ok(Kernel { btf, own_tgid, storage: OnceCell::new() })
    }

    /// This process in the initial PID namespace: what BPF programs see.
    #[must_use]
    pub fn own_tgid(&self) -> u32 {
        self.own_tgid
    }

    /// `btf_trace_NAME` is the type of the probes of the tracepoint NAME.
    fn tracepoint(&self, name: &str) -> Option<Typedef<'_>> {
        self.btf.type_by_name(&format!("btf_trace_{name}"))
    }

    /// Arguments of a tracepoint, without the `void *__data` that the typedef begins with; none if the
    /// kernel has no such tracepoint.
    #[must_use]
    pub fn tracepoint_args(&self, name: &str) -> Option<usize> {
        let pointer = Ptr::try_from(self.tracepoint(name)?.referenced_type()).ok()?;
        let proto = FuncProto::try_from(pointer.referenced_type()).ok()?;
        proto.len().checked_sub(1)
    }

    #[must_use]
    pub fn has_member(&self, of: &str, member: &str) -> bool {
        let Some(found) = self.btf.type_by_name::<Struct<'_>>(of) else {
            return false;
        };
        (0..found.len()).filter_map(|i| found.get(i)).any(|m| m.name.is_some_and(|name| name == member))
    }

    /// May a program write to a ring buffer while the run queue is locked?
    ///
    /// Not with PREEMPT_RT before 6.12, 8b62645b09f8 ("bpf: Use raw_spinlock_t in ringbuf"), which stable kernels
    /// got, too: there the ring has a `spinlock_t`, and that is a mutex.
    #[must_use]
    pub fn has_ring_anywhere(&self) -> bool {
        let sleeps = self.has_member("spinlock", "lock"); // an rt_mutex; elsewhere it is `rlock`, in a union
        !sleeps || self.member_type("bpf_ringbuf", "spinlock").is_none_or(|name| name != "spinlock_t")
    }

    /// The name of a member's type.
    fn member_type(&self, of: &str, member: &str) -> Option<String> {
        let found = self.btf.type_by_name::<Struct<'_>>(of)?;
        let members = (0..found.len()).filter_map(|i| found.get(i));
        let member = members.into_iter().find(|m| m.name.is_some_and(|name| name == member))?;
        let name = self.btf.type_by_id::<BtfType<'_>>(member.ty)?.name()?.to_str()?;
        Some(name.to_owned())
    }

    /// Has `enum bpf_func_id` the helper `BPF_FUNC_name`?
    #[must_use]
    pub fn has_helper(&self, name: &str) -> bool {
        let wanted = format!("BPF_FUNC_{name}");
        let Some(helpers) = self.btf.type_by_name::<Enum<'_>>("bpf_func_id") else {
            return false;
        };
        helpers.iter().any(|value| value.name.is_some_and(|name| name == wanted.as_str()))
    }

    /// Has BPF an atomic compare-and-exchange? Since 5.12, 5ffa25502b5a ("bpf: Add instructions for atomic_[cmp]xchg").
    #[must_use]
    pub fn has_cmpxchg(&self) -> bool {
        let stored = insn(STORE_IMM, 10, 0, -8, 0);
        let exchange = insn(ATOMIC, 10, 1, -8, libbpf_sys::BPF_CMPXCHG as i32);
        let insns = [
            insn(MOV_IMM, 0, 0, 0, 0),
            insn(MOV_IMM, 1, 0, 0, 1),
            stored,
            exchange,
            insn(MOV_IMM, 0, 0, 0, 0),
            insn(EXIT_CODE, 0, 0, 0, 0),
        ];
        let mut opts = load_opts();
        load(libbpf_sys::BPF_PROG_TYPE_RAW_TRACEPOINT, &insns, &mut opts).is_ok()
    }

    /// May a tracing program create task storage while the run queue is locked?
    ///
    /// Before 6.4, 08a7ce384e33 ("bpf: Use `bpf_mem_cache_alloc`/free in `bpf_local_storage_elem`"), a new
    /// element came from kmalloc(GFP_ATOMIC), which may wake kswapd and so take the very lock that is
    /// held. That commit brought `bpf_local_storage_map.bpf_ma`; `use_kmalloc_nolock` replaced it in
    /// 6.19 (f484f4a3e058).
    #[must_use]
    pub fn has_safe_task_storage(&self) -> bool {
        *self.storage.get_or_init(|| {
            let map = "bpf_local_storage_map";
            self.has_member(map, "bpf_ma") || self.has_member(map, "use_kmalloc_nolock")
        })
    }

    /// Can a program at a raw tracepoint be preempted? The kernel does not run it then for whatever comes on
    /// the same CPU before it goes on: it takes that for recursion, and counts it as skipped.
    ///
    /// Since 7.0, a46023d5616e ("tracing: Guard __DECLARE_TRACE() use of __DO_TRACE_CALL() with SRCU-fast"):
    /// before it there was no use for that guard's type. Classic tracepoints still turn preemption off.
    #[must_use]
    pub fn preempts_tracepoints(&self) -> bool {
        self.btf.type_by_name::<Typedef<'_>>("class_srcu_fast_notrace_t").is_some()
    }

    /// Loads two instructions as a `tp_btf` program: some architectures and policies refuse the type.
    ///
    /// # Errors
    /// Why not, in a few words.
    pub fn try_tp_btf(&self, name: &str) -> std::result::Result<(), String> {
        let Some(typedef) = self.tracepoint(name) else {
            return Err(no_tracepoint(name));
        };
        let mut opts = libbpf_sys::bpf_prog_load_opts {
            attach_btf_id: u32::from(typedef.type_id()),
            expected_attach_type: libbpf_sys::BPF_TRACE_RAW_TP,
            ..load_opts()
        };
        let insns = [insn(MOV_IMM, 0, 0, 0, 0), insn(EXIT_CODE, 0, 0, 0, 0)];
        match load(libbpf_sys::BPF_PROG_TYPE_TRACING, &insns, &mut opts) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("the kernel refuses tp_btf programs: {error}")),
        }
    }

    /// Raw tracepoints need no more than the tracepoint itself: since 4.17, and `Kernel::probe` has
    /// loaded one.
    ///
    /// # Errors
    /// Why not, in a few words.
    pub fn try_raw_tp(&self, name: &str) -> std::result::Result<(), String> {
        if self.tracepoint(name).is_none() {
            return Err(no_tracepoint(name));
        }
        Ok(())
    }

    /// Loads two instructions as an iterator over `task`, say.
    ///
    /// # Errors
    /// Why not, in a few words.
    pub fn try_iter(&self, over: &str, sleepable: bool) -> std::result::Result<(), String> {
        let name = format!("bpf_iter_{over}");
        // Not by name alone: there is a struct of the same one.
        let mut functions = self.btf.type_by_kind::<Func<'_>>();
        let Some(target) = functions.find(|f| f.name().is_some_and(|n| n == name.as_str())) else {
            return Err(format!("this kernel has no iterator over {over}"));
        };
        let mut opts = libbpf_sys::bpf_prog_load_opts {
            attach_btf_id: u32::from(target.type_id()),
            expected_attach_type: libbpf_sys::BPF_TRACE_ITER,
            prog_flags: if sleepable { libbpf_sys::BPF_F_SLEEPABLE } else { 0 },
            ..load_opts()
        };
        let insns = [insn(MOV_IMM, 0, 0, 0, 0), insn(EXIT_CODE, 0, 0, 0, 0)];
        match load(libbpf_sys::BPF_PROG_TYPE_TRACING, &insns, &mut opts) {
            Ok(_) => Ok(()),
            Err(error) if sleepable => Err(format!("the kernel refuses iterators that sleep: {error}")),
            Err(error) => Err(format!("the kernel refuses iterators: {error}")),
        }
    }
}

fn no_tracepoint(name: &str) -> String {
    format!("this kernel has no tracepoint {name}")
}

/// libbpf's own words go nowhere while we try things out; a failed load brings them back (object.rs).
fn quiet_libbpf() {
    libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Debug, crate::object::keep_log)));
}

fn load_opts() -> libbpf_sys::bpf_prog_load_opts {
    libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as u64,
        ..Default::default()
    }
}

fn insn(code: u32, dst: u8, src: u8, off: i16, imm: i32) -> libbpf_sys::bpf_insn {
    let mut insn = libbpf_sys::bpf_insn { code: code as u8, off, imm, ..Default::default() };
    insn.set_dst_reg(dst);
    insn.set_src_reg(src);
    insn
}

const EXIT_CODE: u32 = libbpf_sys::BPF_JMP | libbpf_sys::BPF_EXIT;
const CALL: u32 = libbpf_sys::BPF_JMP | libbpf_sys::BPF_CALL;
const MOV_IMM: u32 = libbpf_sys::BPF_ALU64 | libbpf_sys::BPF_MOV | libbpf_sys::BPF_K;
const MOV_REG: u32 = libbpf_sys::BPF_ALU64 | libbpf_sys::BPF_MOV | libbpf_sys::BPF_X;
const ADD_IMM: u32 = libbpf_sys::BPF_ALU64 | libbpf_sys::BPF_ADD | libbpf_sys::BPF_K;
const STORE_IMM: u32 = libbpf_sys::BPF_ST | libbpf_sys::BPF_MEM | libbpf_sys::BPF_DW;
const ATOMIC: u32 = libbpf_sys::BPF_STX | libbpf_sys::BPF_ATOMIC | libbpf_sys::BPF_DW;
const RSH_IMM: u32 = libbpf_sys::BPF_ALU64 | libbpf_sys::BPF_RSH | libbpf_sys::BPF_K;

/// Reads kernel memory (address 0, to no effect) and returns the caller's tgid.
fn whoami() -> io::Result<u32> {
    let insns = [
        insn(MOV_REG, 1, 10, 0, 0),
        insn(ADD_IMM, 1, 0, 0, -8),
        insn(MOV_IMM, 2, 0, 0, 8),
        insn(MOV_IMM, 3, 0, 0, 0),
        insn(CALL, 0, 0, 0, libbpf_sys::BPF_FUNC_probe_read_kernel as i32),
        insn(CALL, 0, 0, 0, libbpf_sys::BPF_FUNC_get_current_pid_tgid as i32),
        insn(RSH_IMM, 0, 0, 0, 32),
        insn(EXIT_CODE, 0, 0, 0, 0),
    ];
    let mut opts = load_opts();
    let prog = load(libbpf_sys::BPF_PROG_TYPE_RAW_TRACEPOINT, &insns, &mut opts)?;
    let mut run = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as u64,
        ..Default::default()
    };
    // SAFETY: the descriptor is open and `run` is a zeroed options struct that names its own size.
    let status = unsafe { libbpf_sys::bpf_prog_test_run_opts(prog.as_raw_fd(), &raw mut run) };
    if status == 0 { Ok(run.retval) } else { Err(io::Error::from_raw_os_error(-status)) }
}

fn load(
    kind: libbpf_sys::bpf_prog_type,
    insns: &[libbpf_sys::bpf_insn],
    opts: &mut libbpf_sys::bpf_prog_load_opts,
) -> io::Result<OwnedFd> {
    // SAFETY: both strings are NUL-terminated, `insns` outlives the call and is as long as said, `opts`
    // names its own size; libbpf keeps none of them.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            kind,
            c"tracebelt_try".as_ptr(),
            c"GPL".as_ptr(),
            insns.as_ptr(),
            insns.len() as u64,
            opts,
        )
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
