//! offcputime: waits that are too short for a stack of their own, and stacks that there is no room for. Their time
//! is exact, and goes where it belongs in proportion.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::process::Command;

    use tracebelt_tests::cpu::{self, Account};
    use tracebelt_tests::{Program, Running, Stack, Tool, env, program, skip, stacks, usecs, waits, within};

    fn offcputime(program: &Program, args: &str) -> Running {
        Tool::new("offcputime").words("--json").words(args).args(["-p", &program.pid().to_string()]).start()
    }

    /// Three standard errors of a share that is drawn so often.
    fn allowed(share: f64, draws: f64) -> f64 {
        3.0 * (share * (1.0 - share) / draws).sqrt()
    }

    #[test]
    fn pooled_time_is_exact_and_fairly_split() {
        for args in ["--quantum 20ms", "--exact"] {
            let mut program = Program::waits("split:1009:400");
            let tool = offcputime(&program, args);
            let said = program.run();
            let all = stacks(&tool.stop().expect(0));
            let (short, long) = (usecs(within(&all, "short_one")), usecs(within(&all, "short_three")));
            // From the program's clock to the switch and back, at each of them.
            let (ours, truth) = (short + long, said.of("split"));
            let aside = if env::is_tcg() { 400.0 } else { 20.0 } * 2.0 * 1009.0;
            assert!(ours <= truth && ours > truth - aside, "{args}: {ours} of {truth}");
            // The program's clock takes as much of a short wait as of a long one.
            let share = (said.of("longer") - (truth - ours) / 2.0) / ours;
            // One draw in each quantum.
            let error = match args {
                "--exact" if env::is_tcg() => 0.02,
                "--exact" => 0.005,
                _ => allowed(share, truth / 20_000.0),
            };
            let ours = long / (short + long);
            eprintln!("{args}: ours {ours:.4}, in truth {share:.4}, at most {error:.4} apart");
            assert!((ours - share).abs() < error, "{args}: {ours} of {share}");
            let drawn: f64 = all.iter().map(|stack| stack.pooled_usecs).sum();
            assert_eq!(drawn > 0.0, args != "--exact", "{all:?}");
        }
    }

    /// Waits in step with the quantum, 15 ms and 45 by turns and one of each in a quantum, but for what their wakeups
    /// take: points at a fixed distance would lie in the same kind of wait from the first to the last.
    #[test]
    fn waits_in_step_with_the_quantum_are_no_worse() {
        let mut program = Program::waits("split:61:15000");
        let tool = offcputime(&program, "--quantum 60100us");
        let said = program.run();
        let all = stacks(&tool.stop().expect(0));
        let (short, long) = (usecs(within(&all, "short_one")), usecs(within(&all, "short_three")));
        let (ours, truth) = (long / (short + long), said.of("longer") / said.of("split"));
        let error = allowed(truth, said.of("split") / 60_100.0);
        eprintln!("ours {ours:.3}, in truth {truth:.3}, at most {error:.3} apart");
        assert!((ours - truth).abs() < error, "{ours} of {truth}");
    }

    /// Waits of 15 and 45 microseconds and what a wakeup takes, strictly by turns: drawn at a fixed distance, it would
    /// always be the same one that is met.
    #[test]
    fn short_waits_are_shared_out_by_their_time() {
        if cpu::allowed().len() < 2 || env::is_tcg() {
            skip!("two CPUs that are not emulated are needed");
        }
        let path = program::built("alternate").expect("build.rs");
        let mut program = Program::start(Command::new(path).arg("4001"));
        // Long waits are exact in both.
        let tools = ["--exact -M 300", "--quantum 300us -M 300"].map(|args| offcputime(&program, args));
        program.run();
        let [(exact, truth), (drawn, sum)] = tools.map(|tool| {
            let all = stacks(&tool.stop().expect(0));
            let (short, long) = (usecs(within(&all, "short_wait")), usecs(within(&all, "long_wait")));
            (short / (short + long), short + long)
        });
        let draws = sum / 300.0;
        let error = allowed(exact, draws);
        eprintln!("{exact:.4} exact, {drawn:.4} drawn {draws:.0} times, at most {error:.4} apart");
        // Where others keep the CPUs busy most waits for an answer are long, and of the 45 more than of the 15.
        if draws < 500.0 && env::is_busy() {
            skip!("others keep the CPUs busy: most waits for an answer were long");
        }
        assert!(draws > 500.0, "{draws} draws");
        assert!((0.2..0.45).contains(&exact) || env::is_busy(), "{exact}");
        assert!((drawn - exact).abs() < error, "{drawn} for {exact}");
        // Both see the same waits, one after the other: the second is a little longer.
        assert!((sum / truth - 1.0).abs() < 0.1, "{sum} of {truth}");
    }

    /// A thread that never has a whole quantum is there with all that it has waited.
    #[test]
    fn less_than_a_quantum_is_not_nothing() {
        let mut program = Program::waits("split:5:30000 nap:23:20000");
        let ran = |program: &Program, comm: &str| Account::of_thread(program.pid(), program.tid(comm)).run;
        let before = ["split", "nap"].map(|comm| ran(&program, comm));
        let tool = offcputime(&program, "--preempted --quantum 1s");
        program.run();
        let ended = tool.stop().expect(0);
        let all = stacks(&ended);
        for (comm, before) in ["split", "nap"].into_iter().zip(before) {
            let own = all.iter().filter(|stack| stack.tid == program.tid(comm));
            let truth = ended.end().0.num("seconds") * 1e6 - (ran(&program, comm) - before);
            let ours = usecs(own.clone());
            eprintln!("{comm}: ours {ours:.0} us, in truth {truth:.0} us");
            // The kernel books the time from a wakeup to the switch that it causes as time on the CPU.
            let aside = truth * 0.01 + 100.0 * waits(own.clone()) as f64;
            assert!((ours - truth).abs() < aside || env::is_tcg(), "{comm}: {ours} of {truth}");
            assert!(usecs(own.clone().filter(|stack| !stack.still_blocked)) > 450_000.0, "{all:?}");
            assert!(own.map(|stack| stack.pooled_usecs).sum::<f64>() > 450_000.0, "{all:?}");
        }
        assert_eq!(waits(&all), ended.end().events(), "{}", ended.story());
    }

    /// A budget for a handful of stacks: what has no room keeps its time.
    #[test]
    fn stacks_without_room_keep_their_time() {
        let mut program = Program::waits("paths:6:10000");
        let threads = cpu::tids(program.pid()).len() as f64;
        let before = program.spent().0;
        let tool = offcputime(&program, "--preempted --stack-storage-size 16");
        program.run();
        let ended = tool.stop().expect(0);
        let on_cpu = program.spent().0 - before;
        let all = stacks(&ended);
        let wall = threads * ended.end().0.num("seconds") * 1e6;
        let (ours, truth) = (usecs(&all), wall - on_cpu);
        eprintln!("ours {ours:.0} us, in truth {truth:.0} us");
        assert!((ours / truth - 1.0).abs() < 0.01 || env::is_tcg(), "{ours} of {truth}");
        let naps: Vec<&Stack> = all
            .iter()
            .filter(|stack| stack.comm == "paths" && !stack.still_blocked && !stack.preempted)
            .collect();
        let asleep = usecs(naps.iter().copied());
        assert!(asleep > 640_000.0, "64 naps of 10 ms: {asleep}");
        let marked = |stack: &&Stack| stack.user.iter().chain(&stack.kernel).any(|f| f == "[stack not kept]");
        let left_out = usecs(all.iter().filter(marked));
        assert!(left_out > 0.5 * asleep && left_out < ours, "{left_out} of {asleep}");
        let end = ended.end().0;
        assert!(end.int("stacks_not_kept") > 0 && end.int("stacks") <= 16, "{}", end.line());
        assert!(ended.err().contains("[stack not kept]") && ended.err().contains("--stack-storage-size"));
    }

    /// 64 stacks of 6 frames, whole: all of them, and each with the time of its one nap.
    #[test]
    fn each_stack_has_its_own_line() {
        let mut program = Program::waits("paths:6:10000");
        let tool = offcputime(&program, "");
        program.run();
        let ended = tool.stop().expect(0);
        let all = stacks(&ended);
        let naps = within(&all, "nap_inner");
        let mut paths: Vec<String> = naps
            .iter()
            .map(|stack| {
                let sides = stack.user.iter().filter(|frame| *frame == "left" || *frame == "right");
                sides.map(|frame| &frame[..1]).collect()
            })
            .collect();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), 64, "{paths:?}");
        assert!(paths.iter().all(|path| path.len() == 7 && path.ends_with('l')), "{paths:?}");
        // Emulated, it may take a millisecond from the program's asking to its leaving the CPU.
        let least = if env::is_tcg() { 5_000.0 } else { 9_900.0 };
        assert!(naps.iter().all(|stack| stack.usecs > least), "{naps:?}");
        assert_eq!(ended.end().0.int("stacks_not_kept"), 0);
    }

    /// Frames beyond the limit are not there, and that is said.
    #[test]
    fn a_stack_that_is_cut_says_so() {
        let mut program = Program::waits("paths:6:10000");
        let tools = ["--perf-max-stack-depth 5", ""].map(|args| offcputime(&program, args));
        program.run();
        let [cut, whole] = tools.map(|tool| {
            let all = stacks(&tool.stop().expect(0));
            // Not by the kernel's frames: of an untyped program's own stack the tracer takes up some.
            all.into_iter().filter(|stack| stack.is_in("nap_inner")).collect::<Vec<_>>()
        });
        assert!(!cut.is_empty() && usecs(&cut) > 0.98 * usecs(&whole), "{cut:?}");
        for stack in &cut {
            assert_eq!(stack.user.last().map(String::as_str), Some("[truncated]"), "{stack:?}");
            assert!(!stack.is_in("work"), "{stack:?}");
            // Functions that frame pointers skip are found in addition.
            assert!(stack.user.len() <= 5 + 2 + 1 && stack.kernel.len() <= 5 + 4 + 1, "{stack:?}");
        }
        assert!(whole.iter().all(|stack| !stack.is_in("[truncated]") && stack.is_in("work")), "{whole:?}");
    }
}
