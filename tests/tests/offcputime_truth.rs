//! offcputime against waits of known length, each by the program's own clock, and against the kernel's
//! account of the same threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::collections::BTreeSet;

    use tracebelt_tests::{Ended, Program, Running, Stack, Tool, Waits, cpu, env, skip, stacks, usecs};

    /// A wait is measured from outside of it by the program, and from the inside by the tool: what the
    /// scheduler adds is in both.
    #[track_caller]
    fn assert_close(ours: f64, truth: f64, what: &str) {
        let off = (ours - truth).abs() / truth.max(1.0);
        eprintln!("{what}: ours {ours:.0} us, in truth {truth:.0} us, {:.3}% apart", off * 100.0);
        assert!(off < 0.01 || env::is_tcg() && off < 0.1, "{what}: ours {ours}, in truth {truth}");
    }

    fn offcputime(program: &Program, args: &str) -> Running {
        Tool::new("offcputime").words("--json").words(args).args(["-p", &program.pid().to_string()]).start()
    }

    /// Waits that are missing, as the tool itself says.
    fn lost(ended: &Ended) -> u64 {
        let missing = |(why, n): (String, u64)| {
            ["ring", "map_full", "unmatched", "skipped"].contains(&why.as_str()).then_some(n)
        };
        ended.end().losses().into_iter().filter_map(missing).sum()
    }

    fn within<'a>(all: &'a [Stack], function: &str) -> Vec<&'a Stack> {
        all.iter().filter(|stack| stack.is_in(function)).collect()
    }

    /// inner is called by outer: they are neighbours, the inner one first.
    #[track_caller]
    fn assert_called(stack: &Stack, inner: &str, outer: &str) {
        let at = stack.user.iter().position(|frame| frame == inner);
        let at = at.unwrap_or_else(|| panic!("no {inner} in {stack:?}"));
        assert_eq!(stack.user.get(at + 1).map(String::as_str), Some(outer), "{stack:?}");
    }

    #[test]
    fn each_wait_has_its_length_and_its_names() {
        let waits = match Waits::compile() {
            Ok(waits) => waits,
            Err(why) => skip!("{why}"),
        };
        let mut program = waits.start("nap:37:20000 hold:1300000 lock feed:1700000 read");
        let tool = offcputime(&program, "");
        let before = program.spent();
        let said = program.run();
        let after = program.spent();
        // What the scheduler added is in the program's time, but no wait.
        let added = after.0 - before.0 + after.1 - before.1;
        let ended = tool.stop().expect(0);
        let all = stacks(&ended);
        assert!(all.iter().all(|stack| stack.pid == program.pid()), "{}", ended.story());

        // The names must be there, and the nominal lengths, whatever the program's clock says.
        for (inner, outer, what, nominal, count) in [
            ("nap_inner", "nap_outer", "nap", 740_000.0, 37),
            ("lock_inner", "lock_outer", "lock", 1_300_000.0, 1),
            ("read_inner", "read_outer", "read", 1_700_000.0, 1),
        ] {
            let found = within(&all, inner);
            found.iter().for_each(|stack| assert_called(stack, inner, outer));
            let sum = usecs(found.iter().copied());
            let truth = said.of(what);
            eprintln!("{what}: ours {sum:.0}, in truth {truth:.0}, of it up to {added:.0} added");
            assert!(sum <= truth && sum > truth * 0.99 - added, "{what}: {sum} of {truth}, {added} added");
            assert!(sum > nominal * 0.99, "{what}: {sum} of {nominal}");
            let waited: u64 = found.iter().map(|stack| stack.count).sum();
            assert!(waited >= count - lost(&ended).min(count), "{what}: {waited} of {count} waits");
            assert!(found.iter().all(|stack| stack.state == "S" && !stack.still_blocked), "{found:?}");
            assert!(found.iter().all(|stack| stack.comm == what && stack.tid == program.tid(what)));
        }
        let kernel = |what: &str, part: &str| {
            let found = within(&all, what);
            let has = |stack: &&Stack| stack.kernel.iter().any(|frame| frame.contains(part));
            assert!(found.iter().all(has), "{part} is in the kernel's part: {found:?}");
        };
        kernel("nap_inner", "nanosleep");
        kernel("lock_inner", "futex");
        kernel("read_inner", "pipe_read");
    }

    #[test]
    fn who_is_blocked_throughout_is_there() {
        let Ok(waits) = Waits::compile() else { skip!("no C compiler") };
        let mut program = waits.start("poll nap:11:20000");
        let tid = program.tid("poll");
        let tool = offcputime(&program, "");
        program.run();
        let ended = tool.stop().expect(0);
        let window = ended.end().0.num("seconds") * 1e6;
        let all = stacks(&ended);
        let found = within(&all, "poll_inner");
        let [stack] = found.as_slice() else { panic!("once: {found:?}") };
        assert_called(stack, "poll_inner", "poll_outer");
        assert!(stack.still_blocked && stack.tid == tid && stack.state == "S", "{stack:?}");
        assert!(stack.usecs > window * 0.99, "{} of {window} us: {stack:?}", stack.usecs);
        assert!(stack.kernel.iter().any(|frame| frame.contains("poll")), "{stack:?}");
        // The main thread waits for all of its run; who has waited and gone on is not marked.
        assert!(within(&all, "nap_inner").iter().all(|stack| !stack.still_blocked), "{}", ended.story());
    }

    /// Asleep before the run and after it, every thread is on a CPU or off it for all of it.
    #[test]
    fn all_waits_of_a_process_are_its_time_off_cpu() {
        let Ok(waits) = Waits::compile() else { skip!("no C compiler") };
        for args in ["", "--preempted", "--exact --preempted"] {
            let mut program =
                waits.start("poll nap:37:20000 spin:300000 spin:300000 spin:300000 split:500:30");
            let threads = cpu::tids(program.pid()).len() as f64;
            let before = program.spent();
            let tool = offcputime(&program, args);
            program.run();
            let ended = tool.stop().expect(0);
            let after = program.spent();
            let (on_cpu, queued) = (after.0 - before.0, after.1 - before.1);
            let wall = threads * ended.end().0.num("seconds") * 1e6;
            let all = stacks(&ended);
            let ours = usecs(&all);
            assert!(on_cpu > 900_000.0, "three have spun: {on_cpu}");
            eprintln!("{args}: wall {wall:.0}, on CPU {on_cpu:.0}, queued {queued:.0}, ours {ours:.0}");
            if args.is_empty() {
                // A wait ends with the switch-in: the queue after a wakeup is in it, that after a preemption not.
                let (least, most) = (wall - on_cpu - queued, wall - on_cpu);
                assert!(ours > least * 0.99 && ours < most * 1.01, "{ours} in {least} to {most}");
                assert!(all.iter().all(|stack| !stack.preempted && stack.state != "R"), "{}", ended.story());
            } else {
                assert_close(ours, wall - on_cpu, "off CPU");
                let preempted = usecs(all.iter().filter(|stack| stack.preempted));
                assert!(preempted > 0.0 && preempted <= queued * 1.1, "{preempted} of {queued}");
            }
        }
    }

    #[test]
    fn pooled_time_is_exact_and_fairly_split() {
        let Ok(waits) = Waits::compile() else { skip!("no C compiler") };
        for args in ["--quantum 20ms", "--exact"] {
            let mut program = waits.start("split:1009:400");
            let tool = offcputime(&program, args);
            let said = program.run();
            let ended = tool.stop().expect(0);
            let all = stacks(&ended);
            let (short, long) = (usecs(within(&all, "short_one")), usecs(within(&all, "short_three")));
            // From the program's clock to the switch and back, at each of them.
            let (ours, truth) = (short + long, said.of("split"));
            let aside = if env::is_tcg() { 400.0 } else { 20.0 } * 2.0 * 1009.0;
            assert!(ours <= truth && ours > truth - aside, "{args}: {ours} of {truth}");
            let share = said.of("longer") / said.of("split");
            // One draw in each quantum; exact is exact.
            let draws = said.of("split") / 20_000.0;
            let error = if args == "--exact" { 0.005 } else { 3.0 * (share * (1.0 - share) / draws).sqrt() };
            let ours = long / (short + long);
            eprintln!("{args}: ours {ours:.4}, in truth {share:.4}, at most {error:.4} apart");
            assert!((ours - share).abs() < error, "{args}: {ours} of {share}");
        }
    }

    /// A budget for a handful of stacks: what has no room keeps its time.
    #[test]
    fn stacks_without_room_keep_their_time() {
        let Ok(waits) = Waits::compile() else { skip!("no C compiler") };
        let mut program = waits.start("paths:6:10000");
        let threads = cpu::tids(program.pid()).len() as f64;
        let before = program.spent().0;
        let tool = offcputime(&program, "--preempted --stack-storage-size 16");
        program.run();
        let ended = tool.stop().expect(0);
        let on_cpu = program.spent().0 - before;
        let all = stacks(&ended);
        let wall = threads * ended.end().0.num("seconds") * 1e6;
        assert_close(usecs(&all), wall - on_cpu, "with and without a stack");
        let naps =
            all.iter().filter(|stack| stack.comm == "paths" && !stack.still_blocked && !stack.preempted);
        let naps = usecs(naps);
        assert!(naps > 640_000.0, "64 naps of 10 ms: {naps}");
        let marked = |stack: &&Stack| stack.user.iter().chain(&stack.kernel).any(|f| f == "[stack not kept]");
        assert!(all.iter().any(|stack| marked(&stack)), "{}", ended.story());
        assert!(ended.end().0.int("stacks_not_kept") > 0);
        assert!(ended.end().0.int("stacks") <= 16 + 1);
    }

    #[test]
    fn thousands_of_short_threads_are_all_there() {
        let Ok(waits) = Waits::compile() else { skip!("no C compiler") };
        let count: u64 = if env::is_tcg() { 307 } else { 3001 };
        let mut program = waits.start(&format!("threads:{count}:2000"));
        let tool = offcputime(&program, "");
        let said = program.run();
        let ended = tool.stop().expect(0);
        let all = stacks(&ended);
        let naps = within(&all, "short_life");
        let waited: u64 = naps.iter().map(|stack| stack.count).sum();
        let tids: BTreeSet<u32> = naps.iter().map(|stack| stack.tid).collect();
        eprintln!("{} threads, {waited} waits, lost {:?}", tids.len(), ended.end().losses());
        // Preempted on their way to sleep and back, some wait twice.
        assert!(waited + lost(&ended) >= count, "{waited} of {count}, lost {}", lost(&ended));
        assert!(lost(&ended) <= 3 + count / 10, "{}", ended.end().0.line());
        let missing = lost(&ended) as f64 * said.of("threads") / count as f64;
        let ours = usecs(naps.iter().copied());
        assert!(ours > count as f64 * 2000.0 - missing && ours < said.of("threads"), "{ours} us");
        naps.iter().for_each(|stack| assert_called(stack, "nap_inner", "short_life"));
    }

    /// By the time that names are looked for, those of 50 ms are long gone, and in the end the file, too.
    #[test]
    fn a_process_that_has_ended_keeps_its_names() {
        let Ok(waits) = Waits::compile() else { skip!("no C compiler") };
        let tool = Tool::new("offcputime").arg("--json").arg("--").args(waits.words("brief:7:50000")).run();
        let all = stacks(&tool.expect(7));
        let children: Vec<&Stack> = all.iter().filter(|stack| stack.is_in("nap_inner")).collect();
        let pids: BTreeSet<u32> = children.iter().map(|stack| stack.pid).collect();
        assert_eq!(pids.len(), 7, "{all:?}");
        children.iter().for_each(|stack| assert_called(stack, "nap_inner", "nap_outer"));
        let each = usecs(children) / 7.0;
        assert!(each > 49_500.0 && (each < 60_000.0 || env::is_tcg() || env::is_busy()), "{each} us");

        let program = waits.start("poll nap:3:20000");
        let mut named = waits.start("nap:29:5000");
        let tool = Tool::new("offcputime").args(["--json", "-n", "nap"]).start();
        named.run();
        named.end();
        program.end();
        drop(waits);
        let all = stacks(&tool.stop().expect(0));
        let naps = usecs(all.iter().filter(|stack| stack.is_in("nap_inner") && stack.is_in("nap_outer")));
        assert!(naps > 29.0 * 5000.0 * 0.99, "{all:?}");
    }
}
