//! opensnoop: names as they were given, names that attack, and -F: the path that was really opened.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    use tracebelt_tests::{TempDir, Traced, Work, trace};

    /// Seven opens under -F; the one path they all have.
    #[track_caller]
    fn full_path(work: Work) -> String {
        let traced = trace("opensnoop", &["--json", "-F"], work).unwrap();
        let paths = traced.paths();
        assert_eq!(paths.len(), 7, "{}", traced.ended.story());
        assert!(paths.iter().all(|path| *path == paths[0]), "{paths:?}");
        assert_eq!(traced.ended.end().losses(), [], "{}", traced.ended.story());
        paths[0].clone()
    }

    fn opens(route: &str, path: &str) -> Work {
        Work::opens(route, 7, path)
    }

    /// A hostile name, as the shell's `$'…'` would write it, and how it has to be shown.
    const NAMES: &[(&[u8], &str)] = &[
        (b"esc\x1b[31mred", "esc\\033[31mred"),
        (b"two\nlines 0 forged", "two\\nlines 0 forged"),
        (b"tab\there", "tab\\there"),
        (b"back\\slash", "back\\\\slash"),
        (b"bad\xff\xfeutf8", "bad\\377\\376utf8"),
        (b"c1 \xc2\x9b31m", "c1 \\302\\23331m"),
        (b"del\x7f cr\r", "del\\177 cr\\r"),
        ("plain ünïcödé 文".as_bytes(), "plain ünïcödé 文"),
    ];

    #[test]
    fn hostile_names_make_one_row_and_no_escape_sequence() {
        let dir = TempDir::new();
        for (name, shown) in NAMES {
            let path = dir.file(name);
            for args in [&[][..], &["-F"]] {
                let traced = trace("opensnoop", args, Work::opens("openat", 7, &path)).unwrap();
                let text = String::from_utf8(traced.ended.stdout.clone()).expect("output is UTF-8");
                let control = text.chars().find(|c| c.is_control() && *c != '\n');
                assert_eq!(control, None, "{text:?}");
                let row = format!("{}/{shown}", dir.path().display());
                assert_eq!(text.lines().filter(|line| line.ends_with(&row)).count(), 7, "{row:?} in\n{text}");
                assert_eq!(text.lines().count(), 1 + 7, "the header and a row for each\n{text}");
            }
        }
    }

    #[test]
    fn hostile_names_are_whole_in_json() {
        let dir = TempDir::new();
        for (name, _) in NAMES {
            let path = dir.file(name);
            let traced = trace("opensnoop", &["--json"], Work::opens("openat", 7, &path)).unwrap();
            let paths = traced.paths();
            assert_eq!(paths.len(), 7);
            match std::str::from_utf8(name) {
                Ok(name) => assert_eq!(paths[0], dir.join(name)),
                // JSON has no word for such bytes: others stand in for them, and their hexadecimals beside.
                Err(_) => {
                    assert_eq!(paths[0], dir.join("bad\u{fffd}\u{fffd}utf8"));
                    let hex: String =
                        path.as_os_str().as_bytes().iter().map(|b| format!("{b:02x}")).collect();
                    assert_eq!(traced.rows()[0].str("path_hex"), hex);
                }
            }
        }
    }

    #[test]
    fn a_hostile_comm_is_escaped_too() {
        let dir = TempDir::new();
        let work = Work::opens("openat", 7, dir.plain("f")).comm("x\x1b[31m\ny\\");
        let text = trace("opensnoop", &[], work).unwrap().ended.out();
        assert_eq!(text.lines().filter(|line| line.contains(" x\\033[31m\\ny\\\\ ")).count(), 7, "{text}");
    }

    #[test]
    fn the_longest_path_is_shown_whole() {
        let dir = TempDir::new();
        let file = dir.plain("file");
        let room = 4095 - file.len();
        let long = format!(
            "{}/{}{}/file",
            dir.path().display(),
            "./".repeat(room / 2 - 1),
            "/".repeat(room % 2 + 1)
        );
        assert_eq!(long.len(), 4095);
        for route in ["openat", "openat2"] {
            let traced = trace("opensnoop", &["--json"], opens(route, &long)).unwrap();
            assert_eq!(traced.paths(), vec![long.clone(); 7], "{route}");
            assert!(traced.rows().iter().all(|row| row.int("err") == 0));
            assert_eq!(traced.ended.end().losses(), []);
        }
        assert_eq!(full_path(opens("openat", &long)), file);
    }

    /// Longer than any path may be: the call fails, and what is shown says that it is not all.
    #[test]
    fn a_path_that_is_too_long_is_shown_cut() {
        let long = "/".to_owned() + &"x".repeat(5000);
        let traced = trace("opensnoop", &["--json"], opens("openat", &long)).unwrap();
        let rows = traced.rows();
        assert_eq!(rows.len(), 7);
        for row in rows {
            assert_eq!(row.int("err"), i64::from(libc::ENAMETOOLONG));
            let path = row.str("path");
            assert!(path.starts_with("/xxxx") && path.len() > 4000 && path != long, "{}", path.len());
            assert!(path.ends_with("..."), "{}", &path[path.len() - 20..]);
        }
    }

    #[test]
    fn an_empty_name_is_empty_and_no_question_mark() {
        let traced: Traced = trace("opensnoop", &["--json"], opens("openat", "")).unwrap();
        assert_eq!(traced.paths(), [""; 7]);
        assert_eq!(traced.ended.end().losses(), []);
    }

    #[test]
    fn from_a_dirfd() {
        let dir = TempDir::new();
        dir.dir("sub");
        let file = dir.plain("sub/file");
        assert_eq!(full_path(opens("openat-dirfd", &file)), file);
        let bare = trace("opensnoop", &["--json"], opens("openat-dirfd", &file)).unwrap();
        assert_eq!(bare.paths(), ["file"; 7], "without -F the name as it was given");
    }

    #[test]
    fn from_a_dirfd_in_vain() {
        let dir = TempDir::new();
        dir.dir("sub");
        assert_eq!(full_path(opens("openat-dirfd", &dir.join("sub/none"))), dir.join("sub/none"));
    }

    #[test]
    fn from_the_working_directory() {
        let dir = TempDir::new();
        dir.dir("sub");
        let file = dir.plain("sub/file");
        let here = |path: &str| full_path(opens("openat", path).option("--cwd", dir.join("sub")));
        assert_eq!(here("file"), file);
        assert_eq!(here("./../sub//file"), file);
        assert_eq!(here("none"), dir.join("sub/none"));
    }

    #[test]
    fn in_a_chroot() {
        let dir = TempDir::new();
        dir.dir("jail/sub");
        let file = dir.plain("jail/sub/file");
        let jailed = |path: &str| full_path(opens("openat", path).option("--chroot", dir.join("jail")));
        assert_eq!(jailed("/sub/file"), file);
        assert_eq!(jailed("/sub/../../../sub/file"), file);
        assert_eq!(jailed("/sub/none"), dir.join("jail/sub/none"));
    }

    #[test]
    fn through_a_mount() {
        let dir = TempDir::new();
        let (source, target) = (dir.dir("source/deep"), dir.dir("target/deep"));
        dir.plain("source/deep/file");
        let bound = |path: &str| opens("openat", path).option("--bind", format!("{source}:{target}"));
        // The path that leads there for the one who opened it, not where the mount's files are from.
        assert_eq!(full_path(bound(&dir.join("target/deep/file"))), dir.join("target/deep/file"));
        assert_eq!(full_path(bound(&dir.join("source/deep/file"))), dir.join("source/deep/file"));
        let inside = full_path(bound("../deep/file").option("--cwd", &target));
        assert_eq!(inside, dir.join("target/deep/file"));
        // Another file system than the root's.
        assert_eq!(full_path(opens("openat", "/proc/version")), "/proc/version");
    }

    #[test]
    fn through_symbolic_links() {
        let dir = TempDir::new();
        dir.dir("sub");
        let file = dir.plain("sub/file");
        symlink("sub/file", dir.join("link")).unwrap();
        symlink(dir.join("sub"), dir.join("dirlink")).unwrap();
        assert_eq!(full_path(opens("openat", &dir.join("link"))), file);
        assert_eq!(full_path(opens("openat", &dir.join("dirlink/file"))), file);
        let bare = trace("opensnoop", &["--json"], opens("openat", &dir.join("link"))).unwrap();
        assert_eq!(bare.paths(), vec![dir.join("link"); 7]);
    }

    #[test]
    fn deep_down() {
        let dir = TempDir::new();
        let deep = dir.dir(&vec!["d"; 30].join("/"));
        let file = format!("{deep}/file");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(full_path(opens("openat", &file)), file);
        assert_eq!(full_path(opens("openat", "file").option("--cwd", &deep)), file);
    }

    #[test]
    fn by_routes_that_have_no_name() {
        let dir = TempDir::new();
        let file = dir.plain("file");
        match trace("opensnoop", &["--json", "-F"], opens("by-handle", &file)) {
            Ok(traced) => assert_eq!(traced.paths(), vec![file; 7]),
            Err(why) => tracebelt_tests::skip!("{why}"),
        }
    }

    #[test]
    fn by_io_uring() {
        let dir = TempDir::new();
        let file = dir.plain("file");
        for route in ["uring-openat", "uring-openat2", "uring-async"] {
            let work = opens(route, "./file").option("--cwd", dir.path());
            match trace("opensnoop", &["--json", "-F"], work) {
                Ok(traced) if !traced.ended.end().covers("io_uring") => {
                    tracebelt_tests::skip!("this kernel does not show opens through io_uring");
                }
                Ok(traced) => assert_eq!(traced.paths(), vec![file.clone(); 7], "{route}"),
                Err(why) => tracebelt_tests::skip!("{why}"),
            }
        }
    }
}
