//! opensnoop in seconds: for kernels under odd conditions (docs/KERNELS.md).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    mod smoke {
        use tracebelt_tests::{TempDir, Work, trace};

        #[test]
        fn each_open_is_there_once() {
            let dir = TempDir::new();
            for (name, errno) in [("there", 0), ("none", libc::ENOENT)] {
                let path = dir.join(name);
                if errno == 0 {
                    dir.plain(name);
                }
                let work = Work::opens("openat", 101, &path).args(["--threads", "3"]);
                let traced = trace("opensnoop", &["--json", "-F"], work).unwrap();
                let rows = traced.all_rows(3 * 101);
                assert!(rows.iter().all(|row| row.str("path") == path && row.int("err") == i64::from(errno)));
                assert_eq!(traced.ended.end().events(), rows.len() as u64);
            }
        }
    }
}
