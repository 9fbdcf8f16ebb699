//! opensnoop: whose opens and which opens are shown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use tracebelt_tests::{Cgroup, Noise, Record, TempDir, Tool, Work, cpu, skip, trace, trace_all};

    /// The rows of a run that looks at everything, of which the filters leave something.
    #[track_caller]
    fn shown(args: &[&str], work: Vec<Work>) -> Vec<Record> {
        let _noise = Noise::new();
        let args: Vec<&str> = ["--json"].iter().chain(args).copied().collect();
        trace_all("opensnoop", &args, work).unwrap().1.rows()
    }

    #[test]
    fn by_process_and_list_of_processes() {
        let dir = TempDir::new();
        let start = |n, name: &str| Work::opens("openat", n, dir.plain(name)).start().unwrap();
        let (one, two, three) = (start(101, "a"), start(53, "b"), start(211, "c"));
        let _noise = Noise::new();
        let single = Tool::new("opensnoop").args(["--json", "-p", &one.pid().to_string()]).start();
        let pids = format!("{},{}", one.pid(), two.pid());
        let list = Tool::new("opensnoop").args(["--json", "-p", &pids]).start();
        for work in [one, two, three] {
            drop(work.run());
        }
        assert_eq!(single.stop().expect(0).rows().len(), 101);
        assert_eq!(list.stop().expect(0).rows().len(), 101 + 53);
    }

    #[test]
    fn by_thread() {
        let dir = TempDir::new();
        let work = Work::opens("openat", 101, dir.plain("f")).args(["--threads", "3"]).start().unwrap();
        let tids = cpu::tids(work.pid());
        let one = Tool::new("opensnoop").args(["--json", "-t", &tids[1].to_string()]).start();
        let two = Tool::new("opensnoop").args(["--json", "-t", &format!("{},{}", tids[2], tids[3])]).start();
        drop(work.run());
        let rows = one.stop().expect(0).rows();
        assert_eq!(rows.len(), 101);
        assert!(rows.iter().all(|row| row.int("tid") == i64::from(tids[1])));
        assert_eq!(two.stop().expect(0).rows().len(), 202);
    }

    #[test]
    fn by_user_number_and_name() {
        let dir = TempDir::new();
        for user in ["65534", "nobody"] {
            let work = || Work::opens("openat", 53, dir.plain("f"));
            let rows = shown(&["-u", user], vec![work(), work().option("--uid", "65534"), work()]);
            assert_eq!(rows.iter().filter(|row| row.str("path") == dir.join("f")).count(), 53);
            assert!(rows.iter().all(|row| row.int("uid") == 65534));
        }
    }

    #[test]
    fn by_part_of_the_name() {
        let dir = TempDir::new();
        let work = |n: u64, comm: &str| Work::opens("openat", n, dir.plain("f")).comm(comm);
        let rows =
            shown(&["-n", "needl"], vec![work(53, "a-needle-b"), work(101, "haystack"), work(31, "needl")]);
        assert_eq!(rows.len(), 53 + 31, "the needles, and nothing else on this machine");
        assert!(rows.iter().all(|row| row.str("comm").contains("needl")));
    }

    #[test]
    fn only_failures() {
        let dir = TempDir::new();
        let work = vec![
            Work::opens("openat", 101, dir.plain("f")).comm("tb-fail"),
            Work::opens("openat", 53, dir.join("none")).comm("tb-fail"),
        ];
        let rows = shown(&["-x", "-n", "tb-fail"], work);
        assert_eq!(rows.len(), 53);
        assert!(rows.iter().all(|row| row.int("err") == i64::from(libc::ENOENT)));
        let both = shown(&["-x"], vec![Work::opens("openat", 17, dir.join("none"))]);
        assert!(both.len() >= 17 && both.iter().all(|row| row.int("err") != 0));
    }

    #[test]
    fn by_flag() {
        let dir = TempDir::new();
        let file = dir.plain("f");
        let work = |n: u64, flags: i32| {
            Work::opens("openat", n, &file).args(["--flags", &format!("{flags:o}")]).comm("tb-flags")
        };
        let all = || {
            vec![
                work(7, libc::O_RDONLY),
                work(11, libc::O_WRONLY),
                work(13, libc::O_RDWR),
                work(17, libc::O_WRONLY | libc::O_CREAT),
                work(19, libc::O_RDONLY | libc::O_CLOEXEC),
                work(23, libc::O_RDWR | libc::O_APPEND | libc::O_CLOEXEC),
            ]
        };
        for (flags, expected) in [
            (&["-f", "O_RDONLY"][..], 7 + 19),
            (&["-f", "O_WRONLY"], 11 + 17),
            (&["-f", "O_RDWR"], 13 + 23),
            (&["--flag_filter", "O_CREAT"], 17),
            (&["-f", "O_CREAT", "-f", "O_APPEND"], 17 + 23),
            (&["-f", "O_CLOEXEC", "-f", "O_WRONLY"], 11 + 17 + 19 + 23),
            (&["-f", "O_RDONLY", "-f", "O_APPEND"], 7 + 19 + 23),
        ] {
            let args: Vec<&str> = flags.iter().copied().chain(["-n", "tb-flags"]).collect();
            assert_eq!(shown(&args, all()).len(), expected, "{flags:?}");
        }
    }

    #[test]
    fn by_path() {
        let dir = TempDir::new();
        let work = |n: u64, name: &str| Work::opens("openat", n, dir.plain(name));
        let all = || vec![work(7, "a.conf"), work(11, "b.conf"), work(13, "a.log"), work(17, "other")];
        let glob = |pattern: &str| dir.join(pattern);
        let (conf, log, one) = (glob("*.conf"), glob("*.log"), glob("a.conf"));
        for (args, expected) in [
            (vec!["--path", &conf], 7 + 11),
            (vec!["--path", &one], 7),
            (vec!["--path", &conf, "--path", &log], 7 + 11 + 13),
            (vec!["--path", "/nowhere/*"], 0),
        ] {
            assert_eq!(shown(&args, all()).len(), expected, "{args:?}");
        }
    }

    #[test]
    fn by_group_with_those_below_and_new_ones() {
        let group = match Cgroup::new() {
            Ok(group) => group,
            Err(why) => skip!("{why}"),
        };
        let dir = TempDir::new();
        let start = |n| Work::opens("openat", n, dir.plain("f")).start().unwrap();
        let (inside, below, outside) = (start(53), start(101), start(211));
        group.add(inside.pid());
        let tool = Tool::new("opensnoop").arg("--json").arg("--cgroup").arg(group.dir()).start();
        let middle = group.child("middle");
        let inner = middle.child("inner");
        inner.add(below.pid());
        for work in [inside, below, outside] {
            drop(work.run());
        }
        assert_eq!(tool.stop().expect(0).rows().len(), 53 + 101);
        drop(inner);
        drop(middle);
    }

    #[test]
    fn a_command_is_traced_with_its_children() {
        let dir = TempDir::new();
        let file = dir.plain("f");
        let words = |n| {
            let words = Work::opens("openat", n, &file).words();
            words.iter().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
                + " >/dev/null"
        };
        let _noise = Noise::new();
        let other = Work::opens("openat", 211, &file).start().unwrap();
        let script = format!("{} & wait; {}; exit 3", words(53), words(101));
        let ended = Tool::new("opensnoop").words("--json -- /bin/sh -c").arg(&script).run().expect(3);
        drop(other.run());
        let rows = ended.rows();
        assert_eq!(rows.iter().filter(|row| row.str("path") == file).count(), 53 + 101);
        // From the first instruction on: the loader's own opens are there.
        assert!(rows.iter().any(|row| row.str("path").contains("libc.so")), "{}", ended.story());
        assert!(!rows.iter().any(|row| row.str("path") == "/nowhere/at/all"), "the noise is nobody's child");
    }

    #[test]
    fn filters_have_to_hold_together() {
        let dir = TempDir::new();
        let file = dir.plain("f");
        let traced =
            trace("opensnoop", &["--json", "-n", "nobody-has-this"], Work::opens("openat", 53, &file));
        let ended = traced.unwrap().ended;
        assert_eq!(ended.rows().len(), 0);
        assert_eq!(ended.end().events(), 0);
    }
}
