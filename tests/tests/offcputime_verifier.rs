//! offcputime: the kernel takes its programs with every combination of settings.

mod root {
    use tracebelt_tests::{Program, Tool, settings};

    const MODES: [&str; 12] = [
        "",
        "--exact",
        "--preempted",
        "--waker",
        "-U",
        "-K",
        "--state D -m 1ms -M 1s",
        "--by cgroup --quantum 1ms",
        "--by process --exact -i 1",
        "--by stack --perf-max-stack-depth 16",
        "--exact --preempted --waker --by stack",
        "-U --waker --state SD --preempted",
    ];

    #[test]
    fn every_setting_is_taken() {
        settings::all_are_taken("offcputime", &["-u", "-p 1,2 -t 1 -n init -u", "-n x -u"], &MODES);
        // A user's stacks of kernel threads: contradictory, so not with -U.
        let modes: Vec<&str> = MODES.into_iter().filter(|mode| !mode.contains("-U")).collect();
        for mode in modes {
            for filter in ["-k", "-k -n init"] {
                drop(Tool::new("offcputime").words(&format!("--check {mode} {filter}")).run().expect(0));
            }
        }
    }

    /// Taken is not yet attached: in each of them it begins, and ends well.
    #[test]
    fn it_runs_in_every_mode() {
        let program = Program::waits("poll");
        for mode in MODES.into_iter().chain(["--stack-storage-size 1", "--lines -s", "-i 0.1"]) {
            let mode = mode.replace("-i 1", "-i 0.2");
            let tool = Tool::new("offcputime").words(&mode).args(["-p", &program.pid().to_string()]).start();
            drop(tool.stop().expect(0));
        }
    }
}
