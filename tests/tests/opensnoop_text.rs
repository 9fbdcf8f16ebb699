//! opensnoop's columns, which scripts for the peers read, and what else it prints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::time::{Duration, Instant};

    use tracebelt_tests::{Noise, Record, TempDir, Tool, Work, env, trace, trace_all};

    /// The lines of seven opens of `file`; each row with its PID cut out of where it must be.
    #[track_caller]
    fn lines(args: &[&str], work: Work) -> (u32, Vec<String>) {
        let traced = trace("opensnoop", args, work).unwrap();
        let lines: Vec<String> = traced.ended.silent().out().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 8, "a header and seven rows: {lines:?}");
        (traced.pid, lines)
    }

    fn is_clock(text: &str) -> bool {
        text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).eq("00:00:00".chars())
    }

    #[test]
    fn columns_are_the_peers_to_the_byte() {
        let dir = TempDir::new();
        let (file, none) = (dir.plain("f"), dir.join("none"));
        let (pid, text) = lines(&[], Work::opens("openat", 7, &none));
        assert_eq!(text[0], format!("{:<6} {:<16} {:>3} {:>3} PATH", "PID", "COMM", "FD", "ERR"));
        for row in &text[1..] {
            assert_eq!(*row, format!("{pid:<6} {:<16} {:>3} {:>3} {none}", "workload", -1, 2));
        }
        let (pid, text) = lines(&["-U"], Work::opens("openat", 7, &none).option("--uid", "65534"));
        assert_eq!(
            text[0],
            format!("{:<7} {:<6} {:<16} {:>3} {:>3} PATH", "UID", "PID", "COMM", "FD", "ERR")
        );
        assert_eq!(text[1], format!("{:<7} {pid:<6} {:<16} {:>3} {:>3} {none}", 65534, "workload", -1, 2));

        let (pid, text) = lines(&["-T"], Work::opens("openat", 7, &none));
        assert_eq!(
            text[0],
            format!("{:<8} {:<6} {:<16} {:>3} {:>3} PATH", "TIME", "PID", "COMM", "FD", "ERR")
        );
        assert!(is_clock(&text[1][..8]), "{}", text[1]);
        assert_eq!(text[1][8..], format!(" {pid:<6} {:<16} {:>3} {:>3} {none}", "workload", -1, 2));

        let (_, text) = lines(&[], Work::opens("openat", 7, &file));
        let cells: Vec<&str> = text[1].split_whitespace().collect();
        assert!(
            cells[2].parse::<u32>().is_ok_and(|fd| fd > 2) && cells[3] == "0" && cells[4] == file,
            "{cells:?}"
        );
    }

    #[test]
    fn extended_fields_are_flags_and_mode() {
        let dir = TempDir::new();
        let file = dir.plain("f");
        for flag in ["-e", "--extended_fields", "--extended-fields"] {
            let (_, text) = lines(&[flag], Work::opens("openat", 7, &file).args(["--flags", "2000001"]));
            let names: Vec<&str> = text[0].split_whitespace().collect();
            assert_eq!(names, ["PID", "COMM", "FD", "ERR", "FLAGS", "MODE", "PATH"]);
            let cells: Vec<&str> = text[1].split_whitespace().collect();
            assert_eq!(cells[4..], ["02000001", "n/a", &file], "{}", text[1]);
        }
        let created = Work::opens("openat", 7, &file).args(["--flags", "100", "--mode", "640"]);
        let (_, text) = lines(&["-e"], created);
        assert_eq!(text[1].split_whitespace().collect::<Vec<_>>()[4..], ["00000100", "0640", &file]);
        let (_, text) = lines(&["-TUe", "--errname"], Work::opens("openat", 7, dir.join("none")));
        let names: Vec<&str> = text[0].split_whitespace().collect();
        assert_eq!(names, ["TIME", "UID", "PID", "COMM", "FD", "ERR", "FLAGS", "MODE", "PATH"]);
        assert!(text[1].contains(" ENOENT "), "{}", text[1]);
    }

    #[test]
    fn json_rows_have_their_fields_in_order() {
        let dir = TempDir::new();
        let work = Work::opens("openat", 7, dir.plain("f")).args(["--flags", "101", "--mode", "600"]);
        let rows = trace("opensnoop", &["--json", "--latency", "--ppid"], work).unwrap().rows();
        let names = rows[0].names();
        let at =
            |name: &str| names.iter().position(|n| *n == name).unwrap_or_else(|| panic!("{name}: {names:?}"));
        let wanted =
            ["type", "tool", "time", "pid", "tid", "uid", "comm", "fd", "err", "path", "flags", "mode"];
        assert!(wanted.windows(2).all(|two| at(two[0]) < at(two[1])), "{names:?}");
        assert_eq!(rows[0].int("ppid"), i64::from(std::process::id()));
        assert!(rows[0].num("usecs") > 0.0);
    }

    #[test]
    fn the_parent_is_shown() {
        let dir = TempDir::new();
        let (_, text) = lines(&["--ppid"], Work::opens("openat", 7, dir.plain("f")));
        let column = text[0].split_whitespace().position(|name| name == "PPID").expect("PPID");
        let parent = std::process::id().to_string();
        assert!(text[1..].iter().all(|row| row.split_whitespace().nth(column) == Some(&parent)), "{text:?}");
    }

    /// The open of a FIFO takes until somebody opens its other end.
    #[test]
    fn latency_is_the_time_in_the_call() {
        let dir = TempDir::new();
        let (file, fifo) = (dir.plain("f"), dir.join("fifo"));
        let name = std::ffi::CString::new(fifo.as_str()).unwrap();
        // SAFETY: a NUL-terminated path.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o644) }, 0);
        let mut slow = Work::opens("openat", 1, &fifo).arg(&file).start().unwrap();
        let pid = slow.pid().to_string();
        let all = Tool::new("opensnoop").args(["--json", "--latency", "-p", &pid]).start();
        let slower = Tool::new("opensnoop").args(["--json", "--slower", "50ms", "-p", &pid]).start();
        let start = Instant::now();
        slow.go();
        std::thread::sleep(Duration::from_millis(120)); // the length of the work itself
        let other = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
        drop(slow.finish());
        let took = start.elapsed().as_micros() as f64;
        drop(other);
        let rows = all.stop().expect(0).rows();
        assert_eq!(rows.len(), 2);
        let (waited, quick) = (rows[0].num("usecs"), rows[1].num("usecs"));
        assert!(waited > 80_000.0 && waited < took, "{waited} us, of {took} in all");
        assert!(quick > 0.0 && quick < waited, "{quick} and {waited}");
        let rows = slower.stop().expect(0).rows();
        assert_eq!(rows.iter().map(|row| row.str("path")).collect::<Vec<_>>(), [fifo]);
        assert!(rows[0].num("usecs") > 80_000.0);
    }

    #[test]
    fn latency_adds_a_column() {
        let dir = TempDir::new();
        let (_, text) = lines(&["--latency"], Work::opens("openat", 7, dir.plain("f")));
        let column = text[0].split_whitespace().position(|name| name == "USECS").expect("USECS");
        let usecs = |row: &String| row.split_whitespace().nth(column).unwrap().parse::<f64>().unwrap();
        assert!(text[1..].iter().all(|row| usecs(row) > 0.0), "{text:?}");
    }

    #[test]
    fn a_summary_counts() {
        let dir = TempDir::new();
        let work = |n: u64, name: &str, comm: &str| Work::opens("openat", n, dir.join(name)).comm(comm);
        for (by, wanted) in [
            ("path", vec![(dir.join("a"), 101), (dir.join("none"), 53)]),
            ("comm", vec![("tb-sum-one".to_owned(), 101 + 31), ("tb-sum-two".to_owned(), 22)]),
            ("err", vec![("0".to_owned(), 101), ("2".to_owned(), 53)]),
        ] {
            dir.plain("a");
            let all = || {
                [work(101, "a", "tb-sum-one"), work(31, "none", "tb-sum-one"), work(22, "none", "tb-sum-two")]
            };
            let args = ["--summary", by, "-n", "tb-sum"];
            let json: Vec<&str> = ["--json"].into_iter().chain(args).collect();
            let rows = trace_all("opensnoop", &json, all()).unwrap().1.rows();
            let text =
                |row: &Record| row.get(by).as_str().map_or_else(|| row.get(by).to_string(), str::to_owned);
            let mut found: Vec<(String, i64)> =
                rows.iter().map(|row| (text(row), row.int("count"))).collect();
            assert!(found.is_sorted_by(|a, b| a.1 >= b.1), "the most first: {found:?}");
            found.sort();
            assert_eq!(found, wanted);
            let out = trace_all("opensnoop", &args, all()).unwrap().1.silent().out();
            for (key, count) in wanted {
                let names = |line: &&str| {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    words.contains(&count.to_string().as_str()) && words.contains(&key.as_str())
                };
                assert_eq!(out.lines().filter(names).count(), 1, "{key} {count} in\n{out}");
            }
        }
    }

    #[test]
    fn max_events_ends_the_run() {
        let noise = Noise::new();
        for n in [1, 17, 211] {
            let args = ["--json", "-p", &noise.pid().to_string(), "--max-events", &n.to_string()];
            let ended = Tool::new("opensnoop").args(args).run().expect(0).silent();
            assert_eq!(ended.rows().len(), n, "no more and no less");
        }
    }

    #[test]
    fn a_duration_ends_the_run_also_when_nothing_happens() {
        let asleep = Work::opens("openat", 1, "/dev/null").start().unwrap();
        let noise = Noise::new();
        for pid in [asleep.pid(), noise.pid()] {
            let start = Instant::now();
            let ended =
                Tool::new("opensnoop").args(["--json", "-d", "0.4", "-p", &pid.to_string()]).run().expect(0);
            let took = start.elapsed().as_secs_f64();
            assert!(took >= 0.4 && (took < 3.0 || env::is_tcg()), "{took} s");
            assert_eq!(ended.rows().is_empty(), pid == asleep.pid());
            assert!((ended.end().0.num("seconds") - 0.4).abs() < 0.2 || env::is_tcg());
        }
    }

    /// `opensnoop | grep` shows a row when it happens, not when a buffer is full.
    #[test]
    fn rows_come_at_once() {
        let dir = TempDir::new();
        let work = Work::opens("openat", 3, dir.plain("f")).hold().start().unwrap();
        let tool = Tool::new("opensnoop").args(["-p", &work.pid().to_string()]).start();
        drop(work.run());
        let lines = tool.lines(4);
        assert_eq!(lines.len(), 4, "while it still runs: {lines:?}");
        drop(tool.stop().expect(0));
    }
}
