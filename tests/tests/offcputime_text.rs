//! offcputime: what it prints, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

use tracebelt_tests::Tool;

/// Found before anything is looked at: nobody has to be root for it.
#[test]
fn nonsense_is_refused() {
    for (args, word) in [
        ("-u -k", "--kernel-threads-only"),
        ("-U -K", "--user-stacks-only"),
        ("-U -k", "--user-stacks-only"),
        ("-m 2ms -M 1ms", "-m"),
        ("-m 1x", "--min-block-time"),
        ("-M -3", "-3"),
        ("-p 0", "--pid"),
        ("-p abc", "--pid"),
        ("-t 1,x", "--tid"),
        ("--state X", "--state"),
        ("--state 4096", "--state"),
        ("--stack-storage-size 0", "--stack-storage-size"),
        ("--perf-max-stack-depth 0", "--perf-max-stack-depth"),
        ("--perf-max-stack-depth 128", "--perf-max-stack-depth"),
        ("--by nonsense", "--by"),
        ("--top 0", "--top"),
        ("--min-percent 101", "--min-percent"),
        ("--quantum 2m", "--quantum"),
        ("--exact --quantum 1ms", "--exact"),
        ("-i 0 1", "--interval"),
        ("-i 1 -g /tmp/x.svg", "--interval"),
        ("-f --json", "--json"),
        ("--waker --by thread", "--waker"),
        ("--diff x --by thread", "--by"),
        ("--diff x --json", "--json"),
        ("nonsense", "nonsense"),
        ("--nonsense", "--nonsense"),
        ("1 2", "2"),
    ] {
        let ended = Tool::new("offcputime").words(args).run().expect(2);
        assert!(ended.stdout.is_empty(), "{}", ended.story());
        assert!(ended.err().contains(word), "{word:?} is named\n{}", ended.story());
    }
}

mod root {
    use std::process::Command;

    use tracebelt_tests::{Program, Record, Tool, env};

    /// `frame;frame;frame NUMBER`: the number is behind the last blank.
    #[track_caller]
    fn folded(text: &str) -> Vec<(Vec<String>, u64)> {
        let line = |line: &str| {
            let (stack, number) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            assert!(!stack.contains([' ', '\t']), "the only blank is the last one: {line:?}");
            let number = number.parse().unwrap_or_else(|_| panic!("{line:?}"));
            (stack.split(';').map(str::to_owned).collect(), number)
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn folded_lines_follow_the_grammar() {
        let path = tracebelt_tests::program::built("waits").expect("build.rs");
        let mut program = Program::start(Command::new(path).args(["nap:37:5000:a;b c\\d", "poll"]));
        let tool = Tool::new("offcputime").args(["-f", "-p", &program.pid().to_string()]).start();
        let said = program.run();
        let ended = tool.stop().expect(0);
        let lines = folded(&ended.out());
        let of = |name: &str| -> Vec<&(Vec<String>, u64)> {
            let found = lines.iter().filter(|(frames, _)| frames.iter().any(|frame| frame == name)).collect();
            assert_ne!(found, Vec::<&(Vec<String>, u64)>::new(), "no {name}\n{}", ended.story());
            found
        };
        let mut sum = 0;
        for (frames, usecs) in of("nap_inner") {
            sum += usecs;
            assert_eq!(frames[0], r"a\073b\040c\\d", "the name is a frame, escaped: {frames:?}");
            let at = |name: &str| frames.iter().position(|frame| frame == name);
            assert_eq!(at("nap_outer").map(|at| at + 1), at("nap_inner"), "outermost first: {frames:?}");
            let Some(kernel) = frames.iter().position(|frame| frame.ends_with("_[k]")) else {
                assert_eq!(frames.last().map(String::as_str), Some("[kernel\\040stack\\040not\\040seen]"));
                continue;
            };
            assert!(at("nap_inner") < Some(kernel) && frames[kernel..].iter().all(|f| f.ends_with("_[k]")));
            assert!(frames[kernel..].iter().any(|frame| frame.contains("nanosleep")), "{frames:?}");
        }
        let off = (sum as f64 - said.of("nap")).abs() / said.of("nap");
        assert!(off < 0.01 || env::is_tcg() && off < 0.1, "{sum} of {}", said.of("nap"));
        let [(frames, _)] = of("poll_inner")[..] else { panic!("once: {}", ended.story()) };
        assert_eq!(frames.last().map(String::as_str), Some("[still\\040blocked]"), "{frames:?}");
    }

    #[test]
    fn delimiter_and_blanks_in_names() {
        let program = Program::waits("poll:0:0:two\u{a0}x poll:0:0:b");
        let pid = program.pid().to_string();
        let folded_d = Tool::new("offcputime").args(["-f", "-d", "-p", &pid, "0.3"]).run().expect(0);
        let lines = folded(&folded_d.out());
        let poll = lines.iter().find(|(frames, _)| frames.contains(&"poll_inner".to_owned())).unwrap();
        assert!(poll.0.contains(&"-".to_owned()), "a mark between user and kernel: {poll:?}");
        let text = Tool::new("offcputime").args(["-d", "-p", &pid, "0.3"]).run().expect(0).out();
        assert!(text.lines().any(|line| line.trim() == "--"), "{text}");
        let plain = Tool::new("offcputime").args(["-p", &pid, "0.3"]).run().expect(0).out();
        assert!(!plain.lines().any(|line| line.trim() == "--"), "{plain}");
    }

    /// Blocks as BCC has them: frames, then `-  comm (pid)`, then the microseconds; the largest is last.
    #[test]
    fn text_is_in_blocks_and_adds_up() {
        let mut program = Program::waits("nap:37:5000 poll");
        let tool = Tool::new("offcputime").args(["-p", &program.pid().to_string()]).start();
        program.run();
        let text = tool.stop().expect(0).out();
        assert!(text.starts_with("Tracing off-CPU time (us) of "), "{text}");
        let number = |line: &str| line.strip_prefix("        ")?.split(' ').next()?.parse::<u64>().ok();
        let numbers: Vec<u64> = text.lines().filter_map(number).collect();
        assert!(numbers.len() >= 3 && numbers.is_sorted(), "the largest last: {numbers:?}\n{text}");
        let total = text.lines().find_map(|line| line.strip_prefix("# total=")).expect("a total");
        let total: u64 = total.split(' ').next().unwrap().parse().unwrap();
        let sum: u64 = numbers.iter().sum();
        assert!(sum.abs_diff(total) <= numbers.len() as u64, "{sum} of {total}\n{text}");
        let blocks: Vec<&str> = text.split("\n\n").collect();
        let poll = blocks.iter().find(|block| block.contains("poll_inner")).expect("the hung thread");
        assert!(poll.contains("[still blocked]"), "{poll}");
        let lines: Vec<&str> = poll.lines().collect();
        let at = |name: &str| lines.iter().position(|line| line.trim() == name).unwrap();
        assert!(at("poll_inner") + 1 == at("poll_outer"), "innermost first: {poll}");
        assert!(
            lines.iter().any(|line| line.trim_start().starts_with("-  ") && line.contains("poll (")),
            "{poll}"
        );
        let shares: f64 = text
            .lines()
            .filter_map(|line| {
                number(line)?;
                line.split_once('(')?.1.split_once('%')?.0.parse::<f64>().ok()
            })
            .sum();
        assert!((shares - 100.0).abs() < 0.1 * numbers.len() as f64, "{shares}");
    }

    #[test]
    fn json_adds_up_to_the_total_and_top_keeps_it() {
        let mut program = Program::waits("nap:37:5000 paths:3:3000");
        let pid = program.pid().to_string();
        let run = |args: &str| {
            Tool::new("offcputime").words("--json --exact").words(args).args(["-p", &pid]).start()
        };
        let tools =
            [("", run("")), ("--top 2", run("--top 2")), ("--min-percent 15", run("--min-percent 15"))];
        program.run();
        for (args, tool) in tools {
            let ended = tool.stop().expect(0);
            let records = ended.records();
            let stacks: Vec<_> = records.iter().filter(|record| record.str("type") == "stack").collect();
            let (others, shown): (Vec<&Record>, Vec<&Record>) =
                stacks.iter().partition(|r| r.0.contains_key("others"));
            let count: i64 = stacks.iter().map(|record| record.int("count")).sum();
            assert_eq!(count as u64, ended.end().events(), "{args}: {}", ended.story());
            let sum: f64 = stacks.iter().map(|record| record.num("usecs")).sum();
            match args {
                "" => assert!(others.is_empty() && shown.len() >= 9, "{}", ended.story()),
                "--top 2" => assert!(others.len() == 1 && shown.len() == 2, "{}", ended.story()),
                _ => {
                    assert!(others.len() == 1 && !shown.is_empty(), "{}", ended.story());
                    assert!(
                        shown.iter().all(|record| record.num("usecs") >= 0.1499 * sum),
                        "{}",
                        ended.story()
                    );
                }
            }
            let order: Vec<f64> = shown.iter().map(|record| record.num("usecs")).collect();
            assert!(order.is_sorted(), "{order:?}");
        }
    }

    #[test]
    fn the_commands_exit_status_is_passed_on() {
        for (command, code) in [("exit 0", 0), ("sleep 0.05; exit 41", 41)] {
            let ended = Tool::new("offcputime").words("--json -- sh -c").arg(command).run().expect(code);
            assert!(!ended.records().is_empty());
        }
        drop(
            Tool::new("offcputime")
                .words("--json -- /nonexistent/command")
                .run()
                .expect_error(1, &["/nonexistent/command"]),
        );
    }
}
