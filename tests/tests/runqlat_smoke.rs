//! runqlat in seconds: for kernels under odd conditions (docs/KERNELS.md).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    mod smoke {
        use tracebelt_tests::cpu::{self, Account};
        use tracebelt_tests::{Tool, Work, total};

        #[test]
        fn each_wait_is_there_once() {
            let mut work = Work::new("pingpong 503").on_cpu(cpu::last()).hold().start().unwrap();
            let before = Account::of(work.pid());
            let tool = Tool::new("runqlat").args(["--json", "-p", &work.pid().to_string()]).start();
            work.go();
            work.wait_done();
            let ended = tool.stop().expect(0);
            let (count, waited) = total(&ended.histograms());
            let booked = Account::of(work.pid()).since(before);
            assert!(booked.arrivals >= 503, "{booked:?}");
            cpu::assert_all(count, ended.end().all_lost(), booked.arrivals);
            assert!(waited > 0.0, "{}", ended.story());
        }
    }
}
