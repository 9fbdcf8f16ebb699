//! offcputime: whose waits are shown, and which of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::collections::BTreeSet;

    use tracebelt_tests::{
        Cgroup, Program, Running, Stack, Tool, env, skip, stacks, usecs, wait_until, waits, within,
    };

    fn offcputime(args: &[&str]) -> Running {
        Tool::new("offcputime").arg("--json").args(args).start()
    }

    fn all(tool: Running) -> Vec<Stack> {
        stacks(&tool.stop().expect(0))
    }

    fn pids(all: &[Stack]) -> BTreeSet<u32> {
        all.iter().map(|stack| stack.pid).collect()
    }

    fn naps(all: &[Stack]) -> (u64, f64) {
        let found = within(all, "nap_inner");
        (waits(found.iter().copied()), usecs(found))
    }

    fn pid(program: &Program) -> String {
        program.pid().to_string()
    }

    #[test]
    fn by_process_and_list_of_processes() {
        let (mut one, mut two, mut three) =
            (Program::waits("nap:11:5000"), Program::waits("nap:7:5000"), Program::waits("nap:13:5000"));
        let single = offcputime(&["-p", &pid(&one)]);
        let list = offcputime(&["-p", &format!("{},{}", one.pid(), two.pid())]);
        let repeated = offcputime(&["--pid", &pid(&one), "-p", &pid(&two)]);
        drop([one.run(), two.run(), three.run()]);
        let both = BTreeSet::from([one.pid(), two.pid()]);
        assert_eq!(pids(&all(single)), BTreeSet::from([one.pid()]));
        assert_eq!(pids(&all(list)), both);
        assert_eq!(pids(&all(repeated)), both);
    }

    /// The peers stop at 30.
    #[test]
    fn no_limit_on_the_number_of_processes() {
        let mut programs: Vec<Program> = (0..67).map(|_| Program::waits("nap:3:2000")).collect();
        let tool = offcputime(&["-p", &programs.iter().map(pid).collect::<Vec<_>>().join(",")]);
        programs.iter_mut().for_each(|program| drop(program.run()));
        let all = all(tool);
        let napped = all.iter().filter(|stack| stack.is_in("nap_inner")).map(|stack| stack.pid);
        assert_eq!(napped.collect::<BTreeSet<_>>(), programs.iter().map(Program::pid).collect());
    }

    #[test]
    fn by_thread() {
        let mut program = Program::waits("nap:11:5000 poll split:11:500");
        let tid = program.tid("nap");
        let tool = offcputime(&["-t", &tid.to_string()]);
        program.run();
        let all = all(tool);
        assert!(naps(&all).1 > 55_000.0 * 0.99, "{all:?}");
        assert!(all.iter().all(|stack| stack.tid == tid && stack.pid == program.pid()), "{all:?}");
    }

    #[test]
    fn by_name() {
        let mut program = Program::waits("nap:11:5000:needle-a nap:7:5000:hay nap:5:5000:c-needle");
        let tool = offcputime(&["-n", "needle"]);
        program.run();
        let all = all(tool);
        let comms: BTreeSet<&str> = all.iter().map(|stack| stack.comm.as_str()).collect();
        assert_eq!(comms, BTreeSet::from(["needle-a", "c-needle"]));
        assert!(naps(&all).1 > 80_000.0 * 0.99, "{all:?}");
    }

    #[test]
    fn by_group_and_those_below() {
        let (Ok(group), Ok(other)) = (Cgroup::new(), Cgroup::new()) else { skip!("no cgroup v2") };
        let mut programs =
            [Program::waits("nap:7:5000"), Program::waits("nap:7:5000"), Program::waits("nap:7:5000")];
        group.add(programs[0].pid());
        other.add(programs[2].pid());
        let tool = Tool::new("offcputime").arg("--json").arg("--cgroup").arg(group.dir()).start();
        let by = Tool::new("offcputime").words("--json --by cgroup -p");
        let by = by.arg(programs.iter().map(pid).collect::<Vec<_>>().join(",")).start();
        // Not there when the tool started.
        let below = group.child("below");
        below.add(programs[1].pid());
        programs.iter_mut().for_each(|program| drop(program.run()));
        assert_eq!(pids(&all(tool)), programs[..2].iter().map(Program::pid).collect());
        let rows = by.stop().expect(0).rows();
        let groups: BTreeSet<String> = rows.iter().map(|row| row.str("cgroup").to_owned()).collect();
        assert!([&group, &below, &other].iter().all(|group| groups.contains(&group.path())), "{groups:?}");
        drop(programs);
        drop(below);
    }

    #[test]
    fn user_and_kernel_threads() {
        let mut program = Program::waits("nap:53:5000");
        let (user, kernel) = (offcputime(&["-u"]), offcputime(&["-k"]));
        program.run();
        let (user, kernel) = (all(user), all(kernel));
        // kthreadd is 2 and the others are its children; some kernel thread always waits.
        let is_kernel = |stack: &&Stack| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", stack.pid)).unwrap_or_default();
            stat.rsplit_once(") ")
                .and_then(|(_, rest)| rest.split(' ').nth(1))
                .is_some_and(|ppid| ppid == "2")
        };
        assert!(naps(&user).0 >= 52 && naps(&kernel).0 == 0);
        assert!(!kernel.is_empty() && kernel.iter().all(|stack| stack.user.is_empty()), "{kernel:?}");
        assert!(kernel.iter().any(|stack| is_kernel(&stack)));
        assert_eq!(user.iter().find(is_kernel).map(|stack| &stack.comm), None);
    }

    #[test]
    fn only_one_kind_of_stack() {
        let mut program = Program::waits("nap:11:5000");
        let (user, kernel) =
            (offcputime(&["-U", "-p", &pid(&program)]), offcputime(&["-K", "-p", &pid(&program)]));
        program.run();
        let (user, kernel) = (all(user), all(kernel));
        assert!(
            naps(&user).1 > 55_000.0 * 0.99 && user.iter().all(|stack| stack.kernel.is_empty()),
            "{user:?}"
        );
        assert!(!kernel.is_empty() && kernel.iter().all(|stack| stack.user.is_empty()), "{kernel:?}");
        assert!(kernel.iter().any(|stack| stack.kernel.iter().any(|frame| frame.contains("nanosleep"))));
    }

    /// Waits of 2 ms and of 20 ms in one thread each.
    #[test]
    fn by_length() {
        if env::is_tcg() {
            skip!("emulated, 2 ms may be 20");
        }
        let mut program = Program::waits("nap:53:2000:short nap:11:20000:long");
        let run = |args: &[&str]| offcputime(&[&["-p", &pid(&program)], args].concat());
        let least = run(&["-m", "10ms"]);
        let bare = run(&["-m", "10000"]);
        let most = run(&["-M", "10ms"]);
        let between = run(&["--min-block-time", "21s", "--max-block-time", "22s"]);
        let both = run(&[]);
        program.run();
        let of = |all: &[Stack], comm: &str| -> u64 {
            let own = all.iter().filter(|stack| stack.comm == comm && stack.is_in("nap_inner"));
            own.map(|stack| stack.count).sum()
        };
        for tool in [least, bare] {
            let all = all(tool);
            assert!((10..=11).contains(&of(&all, "long")), "{all:?}");
            // A busy machine makes some short ones long, and they are then.
            assert!(of(&all, "short") <= 5, "{all:?}");
            assert!(all.iter().all(|stack| stack.max_usecs >= 10_000.0), "{all:?}");
        }
        let most = all(most);
        assert!(of(&most, "long") == 0 && of(&most, "short") >= 48, "{most:?}");
        assert!(most.iter().all(|stack| stack.max_usecs <= 10_000.0), "{most:?}");
        assert_eq!(naps(&all(between)).0, 0);
        let both = all(both);
        assert!(of(&both, "long") >= 10 && of(&both, "short") >= 52, "{both:?}");
    }

    #[test]
    fn by_state() {
        // Stopped by a signal: T. Who waits for its child in vfork(): K. A nap: S.
        let mut program = Program::waits("nap:11:5000 vfork:20000");
        let stopped = Program::waits("poll");
        let list = format!("{},{}", program.pid(), stopped.pid());
        let tools = ["S", "T", "1", "4", "D", "K", "0x100", "2", "SK"]
            .map(|state| (state, offcputime(&["-p", &list, "--state", state])));
        let signal = |signal: i32| {
            // SAFETY: numbers only, and the process is ours.
            assert_eq!(unsafe { libc::kill(stopped.pid() as i32, signal) }, 0);
        };
        signal(libc::SIGSTOP);
        program.run();
        wait_until("it is stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", stopped.pid())).unwrap();
            stat.contains(") T ").then_some(())
        });
        signal(libc::SIGCONT);
        for (state, tool) in tools {
            let all = all(tool);
            let states: BTreeSet<&str> = all.iter().map(|stack| stack.state.as_str()).collect();
            let expected = match state {
                "1" => "S",
                "4" => "T",
                "0x100" => "K",
                "2" => "DK",
                letters => letters,
            };
            assert!(states.iter().all(|state| expected.contains(state)), "--state {state}: {states:?}");
            let must: Vec<char> = expected.chars().filter(|letter| *letter != 'D').collect();
            assert!(
                must.iter().all(|state| states.contains(&*state.to_string())),
                "--state {state}: {states:?}"
            );
            let vfork = usecs(within(&all, "vfork_outer"));
            assert_eq!(vfork > 19_800.0, expected.contains('K'), "--state {state}: {all:?}");
            assert_eq!(naps(&all).0 > 0, expected.contains('S'), "--state {state}: {all:?}");
        }
    }

    #[test]
    fn kept_apart_by_process_thread_state_and_stack() {
        let mut program = Program::waits("nap:11:5000:one nap:11:5000:two poll");
        let (own, filter) = (pid(&program), ["-p", &pid(&program)].map(str::to_owned));
        let run = |by: &str| offcputime(&["--by", by, &filter[0], &filter[1]]);
        let tools = ["process", "thread", "state"].map(|by| (by, run(by)));
        let stack = run("stack");
        let threads = ["one", "two", "poll"].map(|comm| program.tid(comm));
        program.run();
        let mut sums = Vec::new();
        for (by, tool) in tools {
            let rows = tool.stop().expect(0).rows();
            sums.push(rows.iter().map(|row| row.num("usecs")).sum::<f64>());
            match by {
                "process" => assert!(rows.len() == 1 && rows[0].int("pid").to_string() == own, "{rows:?}"),
                "thread" => {
                    let tids: BTreeSet<i64> = rows.iter().map(|row| row.int("tid")).collect();
                    assert!(threads.iter().all(|tid| tids.contains(&i64::from(*tid))), "{rows:?}");
                    assert!(tids.len() == 4 && rows.len() == 4, "{rows:?}");
                }
                _ => assert!(rows.iter().any(|row| row.str("state") == "S") && rows.len() <= 2, "{rows:?}"),
            }
        }
        // The three end one after the other: who is still blocked is so a little longer.
        assert!(sums.iter().all(|sum| (sum - sums[0]).abs() < sums[0] * 0.9), "{sums:?}");
        let ended = stack.stop().expect(0);
        let records = ended.records();
        let naps = records.iter().filter(|r| r.str("type") == "stack" && r.line().contains("nap_inner"));
        // A wait whose end was not seen has no kernel stack.
        let seen = naps.filter(|r| !r.line().contains("[kernel stack not seen]")).count();
        assert_eq!(seen, 1, "the two threads have one stack: {}", ended.story());
    }
}
