//! offcputime in seconds: for kernels under odd conditions (docs/KERNELS.md).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    mod smoke {
        use tracebelt_tests::{Program, Tool, cpu, env, stacks, usecs, waits, within};

        #[test]
        fn each_wait_is_there_once_and_all_of_them_add_up() {
            let mut program = Program::waits("nap:37:20000 poll spin:100000");
            let threads = cpu::tids(program.pid()).len() as f64;
            let before = program.spent();
            let tool = Tool::new("offcputime").words("--json --preempted -p").arg(program.pid().to_string());
            let tool = tool.start();
            let said = program.run();
            let ended = tool.stop().expect(0);
            let after = program.spent();
            let (all, end) = (stacks(&ended), ended.end());

            let naps = within(&all, "nap_inner");
            let slept: Vec<_> = naps.iter().copied().filter(|stack| !stack.preempted).collect();
            let (counted, asleep) = (waits(slept.iter().copied()), usecs(slept.iter().copied()));
            assert!(counted <= 37 && counted + end.all_lost() >= 37, "{counted} naps: {}", ended.story());
            assert!(asleep <= said.of("nap") && asleep > 740_000.0 * 0.99, "{asleep}: {}", ended.story());
            naps.iter().for_each(|stack| stack.assert_called("nap_inner", "nap_outer"));

            let seconds = end.0.num("seconds");
            let hung =
                usecs(all.iter().filter(|stack| stack.still_blocked && stack.tid == program.tid("poll")));
            let most = if env::is_tcg() { 0.05 } else { 0.01 };
            assert!((hung / 1e6 / seconds - 1.0).abs() < most, "{hung} us of {seconds} s");

            let (ours, truth) = (usecs(&all), threads * seconds * 1e6 - (after.0 - before.0));
            assert!((ours / truth - 1.0).abs() < most, "{ours} us, in truth {truth}");
        }
    }
}
