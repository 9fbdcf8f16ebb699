//! offcputime where no iterator shows it the threads that wait: it finds them in /proc.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use tracebelt_tests::{Program, Running, Stack, Tool, cpu, env, stacks, usecs, waits};

    const TYPES: &str = "/sys/kernel/btf/vmlinux";

    /// With typed programs, and with the kernel's types from a file, where only untyped ones are to be had.
    fn ways() -> Vec<Vec<&'static str>> {
        let mut ways = vec![vec!["--probe", "proc"]];
        if env::btf().is_none() && Path::new(TYPES).exists() {
            ways.push(vec!["--btf", TYPES]);
        }
        if env::probe().is_some() {
            ways = vec![vec![]]; // it is given to each tool
        }
        ways
    }

    fn offcputime(program: &Program, args: &[&str]) -> Running {
        Tool::new("offcputime").arg("--json").args(args).args(["-p", &program.pid().to_string()]).start()
    }

    #[test]
    fn who_is_blocked_throughout_is_there() {
        for way in ways() {
            let mut program = Program::waits("poll nap:11:20000");
            let tid = program.tid("poll");
            let tool = offcputime(&program, &way);
            program.run();
            let ended = tool.stop().expect(0);
            let window = ended.end().0.num("seconds") * 1e6;
            assert!(
                env::probe().is_some() || ended.end().is_via("waits under way", "proc"),
                "{}",
                ended.story()
            );
            let all = stacks(&ended);
            let found: Vec<&Stack> = all.iter().filter(|stack| stack.tid == tid).collect();
            let [stack] = found.as_slice() else { panic!("once: {found:?}") };
            assert!(stack.still_blocked && stack.count == 1 && stack.state == "S", "{stack:?}");
            eprintln!("{way:?}: {} of {window} us, {:?} {:?}", stack.usecs, stack.kernel, stack.user);
            // The window is rounded to a microsecond.
            let (least, most) = (window * 0.99, window + 1.0);
            assert!(stack.usecs > least && stack.usecs < most, "{} of {window}", stack.usecs);
            assert!(stack.kernel_has("poll"), "{stack:?}");
            assert!(stack.user[0].contains("poll"), "the innermost is the C library's: {stack:?}");
            stack.assert_called("poll_inner", "poll_outer");
        }
    }

    /// It waited before the run, was woken in it, and waits again: each once, and the first from the begin on.
    #[test]
    fn who_was_blocked_and_is_woken_counts_from_the_begin() {
        for way in ways() {
            let mut program = Program::waits("nap:3:20000");
            let tid = program.tid("nap");
            let before = Instant::now();
            let tool = offcputime(&program, &way);
            let ready = Instant::now();
            std::thread::sleep(Duration::from_millis(503));
            let least = ready.elapsed().as_secs_f64() * 1e6;
            program.run();
            let most = before.elapsed().as_secs_f64() * 1e6;
            let ended = tool.stop().expect(0);
            let all = stacks(&ended);
            // At the barrier before its naps; at another after them.
            let ours =
                |stack: &&Stack| stack.tid == tid && !stack.is_in("nap_inner") && stack.max_usecs > 400_000.0;
            let found: Vec<&Stack> = all.iter().filter(ours).filter(|stack| !stack.still_blocked).collect();
            let [stack] = found.as_slice() else { panic!("once: {all:?}") };
            let longest = stack.max_usecs;
            eprintln!("{way:?}: {longest} us, between {least} and {most}, in {} waits", stack.count);
            assert!(longest > least * 0.99 && longest < most, "{longest}, at least {least}: {stack:?}");
            assert!(stack.usecs < longest + 100_000.0, "{stack:?}");
            stack.assert_called("work", "start_thread");
        }
    }

    /// Asleep before the run and after it, every thread is on a CPU or off it for all of it.
    #[test]
    fn all_waits_of_a_process_are_its_time_off_cpu() {
        for way in ways() {
            let mut program =
                Program::waits("poll nap:37:20000 spin:300000 spin:300000 spin:300000 split:500:30");
            let threads = cpu::tids(program.pid()).len() as f64;
            let before = program.spent();
            let tool = offcputime(&program, &[way.as_slice(), &["--preempted"]].concat());
            program.run();
            let ended = tool.stop().expect(0);
            let after = program.spent();
            let truth = threads * ended.end().0.num("seconds") * 1e6 - (after.0 - before.0);
            let all = stacks(&ended);
            let ours = usecs(&all);
            eprintln!("{way:?}: ours {ours:.0}, in truth {truth:.0}");
            assert_eq!(waits(&all), ended.end().events(), "{}", ended.story());
            let off = if env::is_tcg() { 0.1 } else { 0.01 };
            assert!((ours / truth - 1.0).abs() < off, "{ours} of {truth}: {}", ended.story());
        }
    }
}
