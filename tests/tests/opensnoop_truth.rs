//! opensnoop: each open once, by whatever way it is made, with its result.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use tracebelt_tests::{Record, TempDir, Tool, Work, env, skip, skipped, trace, trace_all};

    /// The descriptor, if there is one.
    fn fd(row: &Record) -> Option<i64> {
        row.get("fd").as_i64().filter(|fd| *fd >= 0)
    }

    /// `count` opens of a file that is there, and as many plus 2 of one that is not.
    #[track_caller]
    fn check(route: &str, count: u64) -> Result<(), String> {
        let dir = TempDir::new();
        let there = dir.plain("there");
        let missing = dir.join(if route.ends_with("creat") { "nowhere/none" } else { "none" });
        let nameless = route == "by-handle";

        let traced = trace("opensnoop", &["--json"], Work::opens(route, count, &there))?;
        if route.starts_with("uring") && !traced.ended.end().covers("io_uring") {
            return Err("this kernel does not show opens through io_uring, and --check says so".to_owned());
        }
        assert_eq!(traced.said, [format!("opened {count} failed 0")]);
        let rows = traced.all_rows(count);
        for row in &rows {
            let name = if route.ends_with("dirfd") { "there" } else { &there };
            assert_eq!((row.str("path"), row.int("err"), row.str("comm")), (name, 0, "workload"));
            assert_eq!(fd(row).is_some(), route != "uring-direct", "{}", row.line());
            assert_eq!((row.int("tid"), row.int("uid")), (traced.pid.into(), 0), "{}", row.line());
        }
        assert_eq!(traced.ended.end().events(), rows.len() as u64);

        let traced = trace("opensnoop", &["--json"], Work::opens(route, count + 2, &missing))?;
        assert_eq!(traced.said, [format!("opened 0 failed {}", count + 2)]);
        let rows = traced.all_rows(count + 2);
        let wanted = if nameless { libc::ESTALE } else { libc::ENOENT };
        for row in &rows {
            assert_eq!((row.int("err"), fd(row)), (wanted.into(), None), "{}", row.line());
            let name = if route.ends_with("dirfd") { "none" } else { &missing };
            assert!(row.str("path") == name || nameless && !row.str("path").is_empty(), "{}", row.line());
        }
        Ok(())
    }

    macro_rules! routes {
        ($($name:ident: $route:literal, $count:literal;)*) => {$(
            #[test]
            fn $name() {
                if let Err(why) = check($route, $count) {
                    skip!("{why}");
                }
            }
        )*};
    }

    routes! {
        by_open: "open", 23;
        by_creat: "creat", 29;
        by_openat: "openat", 31;
        by_openat_with_a_dirfd: "openat-dirfd", 37;
        by_openat2: "openat2", 41;
        by_open_by_handle_at: "by-handle", 43;
        by_io_uring_openat: "uring-openat", 47;
        by_io_uring_openat2: "uring-openat2", 53;
        by_io_uring_in_a_worker: "uring-async", 59;
        by_io_uring_without_a_descriptor: "uring-direct", 61;
        by_32_bit_open: "compat-open", 67;
        by_32_bit_creat: "compat-creat", 71;
        by_32_bit_openat: "compat-openat", 73;
        by_32_bit_openat2: "compat-openat2", 79;
    }

    #[test]
    fn each_failure_has_its_errno() {
        let dir = TempDir::new();
        let file = dir.plain("file");
        let path = |name: &str| format!("{file}{name}");
        let directory = dir.dir("directory");
        for (path, flags, errno) in [
            (path("/below"), 0, libc::ENOTDIR),
            (path(""), libc::O_CREAT | libc::O_EXCL, libc::EEXIST),
            (path(""), libc::O_DIRECTORY, libc::ENOTDIR),
            (directory, libc::O_WRONLY, libc::EISDIR),
            (String::new(), 0, libc::ENOENT),
        ] {
            let work = Work::opens("openat", 13, &path).args(["--flags", &format!("{flags:o}")]);
            let traced = trace("opensnoop", &["--json"], work).unwrap();
            let rows = traced.all_rows(13);
            assert!(rows.iter().all(|row| row.int("err") == i64::from(errno)), "{path}: {}", rows[0].line());
        }
        let file = dir.plain("secret");
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let work = Work::opens("openat", 17, &file).option("--uid", "65534");
        let rows = trace("opensnoop", &["--json"], work).unwrap().all_rows(17);
        assert!(rows.iter().all(|row| (row.int("err"), row.int("uid")) == (libc::EACCES.into(), 65534)));
    }

    /// As fast as one process can: nothing is lost in silence, and where the reader keeps up nothing at all.
    #[test]
    fn a_burst_is_accounted_for_to_the_last_open() {
        // A small guest has no memory for so many rows in the harness.
        let opens: u64 = if env::is_tcg() { 20_011 } else { 200_003 };
        let dir = TempDir::new();
        let traced = trace("opensnoop", &["--json"], Work::opens("openat", opens, dir.plain("f"))).unwrap();
        assert_eq!(traced.said, [format!("opened {opens} failed 0")]);
        let (seen, lost) = (traced.ended.rows().len() as u64, traced.ended.end().lost("ring"));
        let skipped = skipped(&traced.ended);
        eprintln!("burst: {seen} seen, {lost} lost, {skipped} skipped");
        assert!(seen + lost <= opens && seen + lost + skipped >= opens);
        assert_eq!(traced.ended.end().events(), seen);
        // It can keep up only where it gets a CPU: beside other heavy work that is not promised.
        assert!(lost == 0 || env::is_tcg() || env::is_busy(), "the reader does not keep up: {lost} lost");
    }

    /// Nobody reads, so the ring has to overflow.
    #[test]
    fn what_did_not_fit_is_counted_and_said() {
        const OPENS: u64 = 20_011;
        let dir = TempDir::new();
        for (more, code) in [(&[][..], 0), (&["--strict"], 5)] {
            let work = Work::opens("openat", OPENS, dir.plain("f")).start().unwrap();
            let pid = work.pid().to_string();
            let tool = Tool::new("opensnoop").args(["--json", "-b", "8", "-p", &pid]).args(more).start();
            tool.freeze();
            assert_eq!(work.run().unwrap(), [format!("opened {OPENS} failed 0")]);
            tool.thaw();
            let ended = tool.stop().expect(code);
            let (seen, lost) = (ended.rows().len() as u64, ended.end().lost("ring"));
            assert!(seen > 0 && lost > OPENS / 2, "{seen} seen, {lost} lost");
            let skipped = skipped(&ended);
            assert!(seen + lost <= OPENS && seen + lost + skipped >= OPENS, "{}", ended.story());
            assert_eq!(ended.err_lines().len(), 1, "{}", ended.err());
            assert!(ended.err().contains(&lost.to_string()), "{}", ended.err());
        }
        let work = Work::opens("openat", 1009, dir.plain("f"));
        let traced = trace("opensnoop", &["--json"], work).unwrap();
        if skipped(&traced.ended) > 0 {
            return;
        }
        let work = Work::opens("openat", 1009, dir.plain("f"));
        drop(trace("opensnoop", &["--json", "--strict"], work).unwrap().ended.silent());
    }

    #[test]
    fn a_larger_ring_holds_more() {
        let dir = TempDir::new();
        let seen = ["8", "64"].map(|pages| {
            let work = Work::opens("openat", 20_011, dir.plain("f")).start().unwrap();
            let pid = work.pid().to_string();
            let tool = Tool::new("opensnoop").args(["--json", "-b", pages, "-p", &pid]).start();
            tool.freeze();
            drop(work.run().unwrap());
            tool.thaw();
            tool.stop().expect(0).rows().len()
        });
        assert!(seen[1] > 4 * seen[0], "8 pages hold {}, 64 hold {}", seen[0], seen[1]);
    }

    #[test]
    fn a_name_that_cannot_be_read_is_a_question_mark_and_counted() {
        let traced = trace("opensnoop", &["--json"], Work::opens("bad-pointer", 83, "unused")).unwrap();
        let rows = traced.rows();
        assert!(
            rows.len() <= 83 && rows.len() as u64 + skipped(&traced.ended) >= 83,
            "{}",
            traced.ended.story()
        );
        let bad = |row: &Record| row.str("path") == "?" && row.int("err") == i64::from(libc::EFAULT);
        assert!(rows.iter().all(bad), "{}", rows[0].line());
        let said = rows.len().to_string();
        assert_eq!(traced.ended.end().lost("unreadable").to_string(), said);
        assert!(traced.ended.err().contains(&said), "it is said: {}", traced.ended.err());
        let text = trace("opensnoop", &[], Work::opens("bad-pointer", 3, "unused")).unwrap().ended.out();
        let shown = text.lines().filter(|line| line.ends_with(" 14 ?")).count();
        assert!(shown == 3 || skipped(&traced.ended) > 0 && shown > 0, "{text}");
    }

    /// Four threads on all CPUs: rows come in the order of the opens, whichever CPU they came from.
    #[test]
    fn rows_are_in_the_order_of_time() {
        let dir = TempDir::new();
        let work = Work::opens("openat", 10_007, dir.plain("f")).args(["--threads", "4"]);
        let traced = trace("opensnoop", &["--json"], work).unwrap();
        let rows = traced.all_rows(4 * 10_007);
        let times: Vec<u64> = rows.iter().map(Record::micros_of_day).collect();
        let back = times.windows(2).filter_map(|two| two[0].checked_sub(two[1]));
        // At midnight UTC a day is taken off.
        let back: Vec<u64> = back.filter(|by| (1..80_000_000_000).contains(by)).collect();
        assert!(back.is_empty(), "{} rows come too late, by up to {:?} us", back.len(), back.iter().max());
        let mut each = std::collections::HashMap::new();
        rows.iter().for_each(|row| *each.entry(row.int("tid")).or_insert(0) += 1);
        assert_eq!(each.len(), 4);
        assert!(skipped(&traced.ended) > 0 || each.values().all(|n| *n == 10_007), "{each:?}");
    }

    /// The time is the open's, not that of the printing.
    #[test]
    fn the_time_is_the_events() {
        let dir = TempDir::new();
        let work = Work::opens("openat", 3, dir.plain("f")).start().unwrap();
        let tool = Tool::new("opensnoop").args(["--json", "-p", &work.pid().to_string()]).start();
        tool.freeze();
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
        let before = now();
        drop(work.run().unwrap());
        let after = now();
        std::thread::sleep(std::time::Duration::from_millis(300)); // what a late printing would show
        tool.thaw();
        let day = 86_400_000_000;
        for row in tool.stop().expect(0).rows() {
            let at = u128::from(row.micros_of_day());
            let since = (at + day - before % day) % day;
            assert!(since <= after - before + 20_000, "{since} us after the start, of {}", after - before);
        }
    }

    #[test]
    fn two_at_once_are_kept_apart() {
        let dir = TempDir::new();
        let work = [(101, "a"), (211, "b")].map(|(n, name)| Work::opens("openat", n, dir.plain(name)));
        let (pids, ended) = trace_all("opensnoop", &["--json"], work).unwrap();
        let rows = ended.rows();
        for (pid, n, name) in [(pids[0], 101, "a"), (pids[1], 211, "b")] {
            let own = rows.iter().filter(|row| row.pid() == Some(pid.into()));
            let own: Vec<_> = own.filter(|row| row.str("path") == dir.join(name)).collect();
            assert!(own.len() <= n && own.len() as u64 + skipped(&ended) >= n as u64, "{}", ended.story());
        }
    }
}
