//! offcputime: flame graphs, differences, and folded lines as other tools read them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::collections::BTreeMap;
    use std::fs;
    use std::time::Instant;

    use tracebelt_tests::{Ended, Program, TempDir, Tool, env};

    fn offcputime(program: &Program, args: &[&str]) -> Ended {
        let tool = Tool::new("offcputime").args(args).args(["-p", &program.pid().to_string()]);
        tool.run().expect(0)
    }

    /// Each element opened is closed, in order; the texts of `<title>`.
    #[track_caller]
    fn titles(svg: &str) -> Vec<String> {
        let mut open: Vec<&str> = Vec::new();
        let mut titles = Vec::new();
        let mut rest = svg;
        while let Some(at) = rest.find('<') {
            assert!(open.is_empty() || !rest[..at].contains("]]>"), "{}", &rest[..at]);
            rest = &rest[at..];
            let skip = |end: &str| rest.find(end).map(|at| at + end.len()).expect("it has an end");
            let length = match rest {
                _ if rest.starts_with("<![CDATA[") => skip("]]>"),
                _ if rest.starts_with("<!--") => skip("-->"),
                _ => skip(">"),
            };
            let tag = &rest[1..length - 1];
            rest = &rest[length..];
            let name =
                tag.trim_start_matches('/').split(|c: char| c.is_whitespace() || c == '/').next().unwrap();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "closed in the order of opening");
            } else if !tag.starts_with(['!', '?']) && !tag.ends_with('/') {
                assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
                open.push(name);
                if name == "title" {
                    titles.push(rest[..rest.find('<').unwrap()].to_owned());
                }
            }
        }
        assert!(open.is_empty(), "left open: {open:?}");
        let whole =
            |title: &&String| title.split('&').skip(1).any(|rest| !rest[..rest.len().min(7)].contains(';'));
        assert_eq!(titles.iter().find(whole), None, "escaped");
        titles
    }

    #[test]
    fn a_flame_graph_is_written() {
        let dir = TempDir::new();
        let svg = dir.join("off <&> cpu.svg");
        let mut program = Program::waits("nap:37:5000:a<b>&\"c poll");
        let pid = program.pid().to_string();
        let tool = Tool::new("offcputime").args(["-g", &svg, "-p", &pid]).start();
        let said = program.run();
        let ended = tool.stop().expect(0);
        let text = fs::read_to_string(&svg).unwrap();
        assert!(text.trim_start().starts_with("<?xml") && text.contains("<svg"), "{}", &text[..200]);
        let titles = titles(&text);
        let usecs = |frame: &str| -> f64 {
            let title = titles.iter().find(|title| title.starts_with(&format!("{frame} (")));
            let title = title.unwrap_or_else(|| panic!("no {frame} in {titles:?}"));
            let number = title[frame.len() + 2..].split(' ').next().unwrap();
            number.replace(',', "").parse().unwrap_or_else(|_| panic!("{title}"))
        };
        let naps = said.of("nap");
        assert!(
            usecs("nap_inner") <= naps && usecs("nap_inner") > naps * 0.98 || env::is_tcg(),
            "{titles:?}"
        );
        assert_eq!(usecs("nap_outer"), usecs("nap_inner"));
        assert!(usecs("a&lt;b&gt;&amp;&quot;c") > usecs("nap_inner") + usecs("pause") - 2.0, "{titles:?}");
        assert!(usecs("[still blocked]") > 0.0 && usecs("poll_inner") > naps, "{titles:?}");
        for part in [&format!("Off-CPU time of PIDs {pid}"), "waits, seen in"] {
            assert!(text.contains(part), "{part}");
        }
        let blue = |frame: &str| {
            let frame = text.split_once(&format!("<title>{frame} (")).expect("it is there").1;
            frame.split_once("fill=\"rgb(").unwrap().1.split([',', ')']).nth(2).unwrap().to_owned()
        };
        assert!(
            blue("do_nanosleep") == "0" && blue("nap_inner") != "0",
            "the kernel's have a colour of theirs"
        );
        assert!(
            !ended.out().contains("nap_inner"),
            "the picture is all that was asked for: {}",
            ended.story()
        );
    }

    #[test]
    fn a_report_beside_the_graph_if_it_is_asked_for() {
        let dir = TempDir::new();
        let svg = dir.join("x.svg");
        let program = Program::waits("poll");
        for (args, word) in [("-f", "poll_inner"), ("--json", "\"type\":\"stack\""), ("--by thread", "COMM")]
        {
            let words: Vec<&str> = args.split(' ').chain(["0.2", "-g", &svg]).collect();
            let ended = offcputime(&program, &words);
            assert!(ended.out().contains(word), "{args}: {}", ended.story());
            assert!(fs::read_to_string(&svg).unwrap().contains("poll"), "{args}");
            fs::remove_file(&svg).unwrap();
        }
    }

    /// What is there in one run and not in the other has a 0, as difffolded.pl writes it.
    #[test]
    fn a_difference_has_both_numbers() {
        let dir = TempDir::new();
        let (before, svg) = (dir.join("before.folded"), dir.join("x.svg"));
        let mut program = Program::waits("nap:37:5000 poll");
        let pid = program.pid().to_string();
        let tool = Tool::new("offcputime").args(["-f", "-p", &pid]).start();
        let said = program.run();
        fs::write(&before, tool.stop().expect(0).stdout).unwrap();
        let after = offcputime(&program, &["--diff", &before, "0.5"]);
        let lines: BTreeMap<String, (u64, u64)> = after
            .out()
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let [stack, before, after] = words[..] else { panic!("{line}") };
                (stack.to_owned(), (before.parse().unwrap(), after.parse().unwrap()))
            })
            .collect();
        // A wait whose end was not seen has no kernel stack, and so a line of its own.
        let of = |name: &str| {
            let found = || lines.iter().filter(|(stack, _)| stack.contains(name));
            let seen = found().filter(|(stack, _)| !stack.contains("not\\040seen")).count();
            assert_eq!(seen, 1, "one stack in {name}: {lines:?}");
            found().fold((0, 0), |sum, (_, numbers)| (sum.0 + numbers.0, sum.1 + numbers.1))
        };
        let (naps, poll, pause) = (of("nap_inner"), of("poll_inner"), of("work;pause"));
        assert!(naps.0 > 183_000 && naps.0 as f64 <= said.of("nap") && naps.1 == 0, "{naps:?}");
        assert!(poll.0 > naps.0 && (495_000..700_000).contains(&poll.1) || env::is_tcg(), "{poll:?}");
        assert!(pause.1 > 0, "the thread that has napped is at its end: {lines:?}");
        let drawn = offcputime(&program, &["--diff", &before, "-g", &svg, "0.5"]);
        assert!(drawn.out().is_empty() || !drawn.out().contains("poll_inner"), "{}", drawn.story());
        let text = fs::read_to_string(&svg).unwrap();
        let titles = titles(&text);
        let grown = |title: &&String| title.starts_with("poll_inner (") && title.contains("%; ");
        assert!(titles.iter().any(|title| grown(&title)), "{titles:?}");
    }

    #[test]
    fn what_cannot_be_written_or_read_is_found_before_tracing() {
        let dir = TempDir::new();
        let bad = dir.join("bad.folded");
        fs::write(&bad, "a;b 1\nno number\n").unwrap();
        let start = Instant::now();
        for args in [
            &["-g", "/nonexistent/x.svg", "600"][..],
            &["-g", "/tmp", "600"],
            &["--diff", "/nonexistent/x.folded", "-f", "600"],
            &["--diff", &bad, "600"],
        ] {
            let ended = Tool::new("offcputime").args(args).run();
            drop(ended.expect_error(1, &[args[1]]));
        }
        assert!(start.elapsed() < env::patience());
        // A run that fails leaves no empty file, and takes no old one away.
        let svg = dir.join("x.svg");
        drop(Tool::new("offcputime").args(["-g", &svg, "--cgroup", "/nonexistent", "1"]).run().expect(1));
        assert!(!fs::exists(&svg).unwrap());
    }
}
