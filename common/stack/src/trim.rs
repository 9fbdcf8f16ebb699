//! Kernel stacks without the tracer's own frames.

use crate::frame::Named;

/// How the names of functions begin that are between a tracepoint and the program that took the stack.
/// Which of them are there differs by kernel, by how the program is attached and by how many are: a fixed
/// number to skip is wrong somewhere.
const TRACER: &[&str] = &[
    "bpf_prog_",
    "bpf_trace_run",
    "__traceiter_",
    "__bpf_trace_",
    "bpf_get_stack",
    "bpf_get_task_stack",
    "__bpf_get_stack",
    "bpf_trampoline_",
    "___bpf_prog_run",
    "__bpf_prog_run",
    "trace_call_bpf",
    "perf_trace_",
];

/// A kernel stack from the first frame on that is the traced thread's own. Frames further out stay whatever
/// their names: a thread can sleep inside of bpf(2), or of a BPF program.
#[must_use]
pub fn trim(frames: &[Named]) -> &[Named] {
    let mut own = 0;
    for (depth, frame) in frames.iter().enumerate() {
        match &frame.name {
            Some(name) if TRACER.iter().any(|start| name.starts_with(start)) => own = depth + 1,
            Some(_) => break,
            // A program without a name (net.core.bpf_jit_kallsyms=0): the tracer's if such a frame follows.
            None => {}
        }
    }
    &frames[own..]
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::frame::{Frame, Space};

    fn left(names: &[&str]) -> Vec<String> {
        let frame = |name: &&str| {
            let name = (!name.is_empty()).then(|| (*name).to_owned());
            Rc::new(Frame { name, ..Frame::unknown(Space::Kernel) })
        };
        let frames: Vec<Named> = names.iter().map(frame).collect();
        trim(&frames).iter().map(|frame| frame.label().into_owned()).collect()
    }

    #[test]
    fn the_tracers_frames_go_however_many_there_are() {
        let two = ["bpf_prog_6deef7357e7b4530_switch", "bpf_trace_run4", "__schedule", "schedule"];
        assert_eq!(left(&two), ["__schedule", "schedule"]);
        let three = ["bpf_prog_6deef", "bpf_trace_run4", "__traceiter_sched_switch", "__schedule"];
        assert_eq!(left(&three), ["__schedule"]);
        assert_eq!(left(&["", "bpf_trace_run4", "__schedule"]), ["__schedule"]);
        assert_eq!(left(&["__schedule"]), ["__schedule"]);
        assert!(left(&[]).is_empty());
    }

    #[test]
    fn a_thread_that_sleeps_in_bpf_keeps_its_frames() {
        let stack = ["__schedule", "mutex_lock", "bpf_prog_load", "__sys_bpf"];
        assert_eq!(left(&stack), stack);
        assert_eq!(left(&["", "__schedule"]), ["[unknown]", "__schedule"]);
    }
}
