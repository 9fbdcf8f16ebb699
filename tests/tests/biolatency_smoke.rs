//! biolatency in seconds: for kernels under odd conditions (docs/KERNELS.md).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    mod smoke {
        use tracebelt_tests::disk::{BLOCK, Direct, Loop, assert_all};
        use tracebelt_tests::{Tool, skip};

        #[test]
        fn each_request_is_there_once() {
            let disk = match Loop::new(1) {
                Ok(disk) => disk,
                Err(why) => skip!("{why}"),
            };
            let mut direct = Direct::open(&disk.device, BLOCK);
            for mode in ["", "--split", "-D -F", "--bio"] {
                let tool = Tool::new("biolatency").args(["--json", "-d", disk.path()]).words(mode).start();
                direct.reads(101);
                direct.writes(53);
                let ended = tool.stop().expect(0).silent_but_for_losses();
                assert_all(ended.end().events(), &ended, 101 + 53);
            }
        }
    }
}
