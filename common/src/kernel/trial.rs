//! Programs of a few instructions, to see what the kernel takes and says.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use libbpf_rs::libbpf_sys;

/// Reads kernel memory (address 0, to no effect) and returns the caller's tgid.
pub fn own_tgid() -> io::Result<u32> {
    run(&[
        insn(MOV_REG, 1, 10, 0, 0),
        insn(ADD_IMM, 1, 0, 0, -8),
        insn(MOV_IMM, 2, 0, 0, 8),
        insn(MOV_IMM, 3, 0, 0, 0),
        insn(CALL, 0, 0, 0, libbpf_sys::BPF_FUNC_probe_read_kernel as i32),
        insn(CALL, 0, 0, 0, libbpf_sys::BPF_FUNC_get_current_pid_tgid as i32),
        insn(RSH_IMM, 0, 0, 0, 32),
        insn(EXIT_CODE, 0, 0, 0, 0),
    ])
}

/// The u32 at this place of the caller's `task_struct`.
pub fn current_task_u32(place: u32) -> io::Result<u32> {
    let place = i32::try_from(place).map_err(io::Error::other)?;
    run(&[
        insn(STORE_IMM, 10, 0, -8, 0),
        insn(CALL, 0, 0, 0, libbpf_sys::BPF_FUNC_get_current_task as i32),
        insn(MOV_REG, 3, 0, 0, 0),
        insn(ADD_IMM, 3, 0, 0, place),
        insn(MOV_REG, 1, 10, 0, 0),
        insn(ADD_IMM, 1, 0, 0, -8),
        insn(MOV_IMM, 2, 0, 0, 4),
        insn(CALL, 0, 0, 0, libbpf_sys::BPF_FUNC_probe_read_kernel as i32),
        insn(LOAD, 0, 10, -8, 0),
        insn(EXIT_CODE, 0, 0, 0, 0),
    ])
}

/// Compare-and-exchange on the stack.
pub fn cmpxchg() -> io::Result<()> {
    let insns = [
        insn(MOV_IMM, 0, 0, 0, 0),
        insn(MOV_IMM, 1, 0, 0, 1),
        insn(STORE_IMM, 10, 0, -8, 0),
        insn(ATOMIC, 10, 1, -8, libbpf_sys::BPF_CMPXCHG as i32),
        insn(MOV_IMM, 0, 0, 0, 0),
        insn(EXIT_CODE, 0, 0, 0, 0),
    ];
    load(libbpf_sys::BPF_PROG_TYPE_RAW_TRACEPOINT, &insns, &mut options()).map(drop)
}

/// Nothing, at a tracepoint whose typedef has this number.
pub fn tp_btf(typedef: u32) -> io::Result<()> {
    let mut opts = libbpf_sys::bpf_prog_load_opts {
        attach_btf_id: typedef,
        expected_attach_type: libbpf_sys::BPF_TRACE_RAW_TP,
        ..options()
    };
    let insns = [insn(MOV_IMM, 0, 0, 0, 0), insn(EXIT_CODE, 0, 0, 0, 0)];
    load(libbpf_sys::BPF_PROG_TYPE_TRACING, &insns, &mut opts).map(drop)
}

/// Nothing, at the entry of the function that has this number; attached, and taken away again.
pub fn fentry(function: u32) -> io::Result<()> {
    let mut opts = libbpf_sys::bpf_prog_load_opts {
        attach_btf_id: function,
        expected_attach_type: libbpf_sys::BPF_TRACE_FENTRY,
        ..options()
    };
    let insns = [insn(MOV_IMM, 0, 0, 0, 0), insn(EXIT_CODE, 0, 0, 0, 0)];
    let prog = load(libbpf_sys::BPF_PROG_TYPE_TRACING, &insns, &mut opts)?;
    // SAFETY: the descriptor is open; a typed program has its place already, and so no name.
    let link = unsafe { libbpf_sys::bpf_raw_tracepoint_open(std::ptr::null(), prog.as_raw_fd()) };
    if link < 0 {
        return Err(io::Error::from_raw_os_error(-link));
    }
    // SAFETY: a new descriptor that nobody else owns.
    drop(unsafe { OwnedFd::from_raw_fd(link) });
    Ok(())
}

/// Nothing, as an iterator whose function has this number.
pub fn iter(function: u32, sleepable: bool) -> io::Result<()> {
    let mut opts = libbpf_sys::bpf_prog_load_opts {
        attach_btf_id: function,
        expected_attach_type: libbpf_sys::BPF_TRACE_ITER,
        prog_flags: if sleepable { libbpf_sys::BPF_F_SLEEPABLE } else { 0 },
        ..options()
    };
    let insns = [insn(MOV_IMM, 0, 0, 0, 0), insn(EXIT_CODE, 0, 0, 0, 0)];
    load(libbpf_sys::BPF_PROG_TYPE_TRACING, &insns, &mut opts).map(drop)
}

/// Runs them once, as a raw tracepoint's program; what they return.
fn run(insns: &[libbpf_sys::bpf_insn]) -> io::Result<u32> {
    let prog = load(libbpf_sys::BPF_PROG_TYPE_RAW_TRACEPOINT, insns, &mut options())?;
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

fn options() -> libbpf_sys::bpf_prog_load_opts {
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
const LOAD: u32 = libbpf_sys::BPF_LDX | libbpf_sys::BPF_MEM | libbpf_sys::BPF_W;
const ATOMIC: u32 = libbpf_sys::BPF_STX | libbpf_sys::BPF_ATOMIC | libbpf_sys::BPF_DW;
const RSH_IMM: u32 = libbpf_sys::BPF_ALU64 | libbpf_sys::BPF_RSH | libbpf_sys::BPF_K;
