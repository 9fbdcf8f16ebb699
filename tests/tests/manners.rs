//! How every tool behaves as a process: signals, pipes, privilege, and what it leaves behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::fs;
    use std::path::Path;

    use tracebelt_tests::{
        Ended, FullPipe, Noise, Running, TempDir, Tool, Work, bpf, cgroup, env, eventually, help, wait_until,
    };

    /// Something for each tool to see, done when it returns.
    fn some_work() {
        Work::opens("openat", 13, "/proc/self/status").start().unwrap().run().unwrap();
        Work::new("nap 7 1000").start().unwrap().run().unwrap();
    }

    /// A whole run in JSON: there is an end record, and what was seen was printed.
    #[track_caller]
    fn check_whole(ended: &Ended) {
        let records = ended.records();
        assert!(ended.end().events() == 0 || records.len() > 1, "events, but no result\n{}", ended.story());
    }

    #[test]
    fn a_signal_ends_the_run_with_its_last_part() {
        for tool in env::tools() {
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                let running = Tool::new(&tool).arg("--json").start();
                some_work();
                running.signal(signal);
                check_whole(&running.wait().expect(0).silent_but_for_losses());
            }
        }
    }

    /// The first waits for a reader that does not read; the second does not.
    #[test]
    fn a_second_signal_ends_it_at_once() {
        for tool in env::tools() {
            let (_noise, _full, mut running) = without_a_reader(&tool);
            running.signal(libc::SIGINT);
            wait_until("it waits for its reader", || is_writing(&running).then_some(()));
            assert!(running.is_alive(), "{tool} left before its last part was written");
            press_until_gone(&mut running);
            let ended = running.wait();
            assert_ne!(ended.status.code(), Some(0), "the result is not whole\n{}", ended.story());
        }
    }

    /// Held up by a reader before the first signal comes, it still hears the second.
    #[test]
    fn signals_are_heard_while_a_reader_does_not_read() {
        for tool in env::tools() {
            let (_noise, _full, mut running) = without_a_reader(&tool);
            // A tool that prints nothing before its end waits for a signal, and then for the reader.
            eventually(std::time::Duration::from_secs(1), || is_writing(&running).then_some(()));
            press_until_gone(&mut running);
        }
    }

    /// Its stdout takes nothing, and there is something to print.
    #[track_caller]
    fn without_a_reader(tool: &str) -> (Noise, FullPipe, Running) {
        let (noise, full) = (Noise::new(), FullPipe::new());
        let running = Tool::new(tool).arg("--json").stdout(full.stdout()).start();
        full.fill();
        (noise, full, running)
    }

    /// Ctrl-C again and again: what comes within 100 ms of the first is the same one.
    #[track_caller]
    fn press_until_gone(running: &mut Running) {
        wait_until("it ends although its reader does not read", || {
            if running.is_alive() {
                running.signal(libc::SIGINT);
            }
            (!running.is_alive()).then_some(())
        });
    }

    /// Some thread sleeps in write(2).
    fn is_writing(running: &Running) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", running.pid())).into_iter().flatten().flatten();
        let call = |task: fs::DirEntry| fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
        let numbers = [libc::SYS_write.to_string(), libc::SYS_writev.to_string()];
        tasks.map(call).any(|call| numbers.iter().any(|nr| call.starts_with(&format!("{nr} 0x1 "))))
    }

    #[test]
    fn timeout_prints_the_result() {
        let limit = if env::is_tcg() { "timeout 20" } else { "timeout 2" };
        // All at once: it is the same time for each.
        let start = |tool: &String| Tool::new(tool).arg("--json").under(limit).start();
        let running: Vec<Running> = env::tools().iter().map(start).collect();
        some_work();
        for tool in running {
            // 124 is what timeout makes of it.
            check_whole(&tool.wait().expect(124).silent_but_for_losses());
        }
    }

    #[test]
    fn a_reader_that_goes_is_a_normal_end() {
        for tool in env::tools() {
            let _noise = Noise::new();
            let interval = match help::has(&help::of(&tool), "--interval") {
                true => &["--interval", "0.1"][..],
                false if help::takes_interval(&tool) => &["0.1"],
                false => &[],
            };
            for format in [None, Some("--json")] {
                let ended = Tool::new(&tool)
                    .args(interval)
                    .args(format)
                    .head(1)
                    .run()
                    .expect(0)
                    .silent_but_for_losses();
                assert!(!ended.stdout.is_empty(), "{}", ended.story());
            }
        }
    }

    #[test]
    fn a_closed_stdin_changes_nothing() {
        for tool in env::tools() {
            let running = Tool::new(&tool).arg("--json").without_fd(0).start();
            some_work();
            check_whole(&running.stop().expect(0).silent_but_for_losses());
        }
    }

    /// Whatever it opens next gets descriptor 1: the output must not go there.
    #[test]
    fn a_closed_stdout_breaks_nothing() {
        for tool in env::tools() {
            let running = Tool::new(&tool).without_fd(1).start();
            some_work();
            let ended = running.stop();
            assert!(matches!(ended.status.code(), Some(0 | 1)), "{}", ended.story());
            assert!(ended.err_lines().len() <= 1, "{}", ended.story());
        }
    }

    #[test]
    fn without_privilege_the_missing_capability_is_named() {
        let dir = TempDir::new();
        for tool in env::tools() {
            let copied = || Tool::new(&tool).copied_to(dir.path());
            copied().as_nobody().run().expect_error(4, &["CAP_BPF", "CAP_PERFMON"]);
            copied().as_powerless_root().run().expect_error(4, &["CAP_BPF", "CAP_PERFMON"]);
            let check = copied().arg("--check").as_nobody().run().expect(4);
            assert!(check.err().contains("CAP_BPF"), "{}", check.story());
            copied().arg("--help").as_nobody().run().expect(0).silent();
        }
    }

    #[test]
    fn two_capabilities_are_enough() {
        let dir = TempDir::new();
        for tool in env::tools() {
            let running =
                Tool::new(&tool).copied_to(dir.path()).arg("--json").with_bpf_capabilities().start();
            some_work();
            check_whole(&running.stop().expect(0).silent_but_for_losses());
        }
    }

    #[test]
    fn a_group_that_is_not_there_is_an_error() {
        let plain = TempDir::new();
        for tool in help::tools_with("--cgroup") {
            for path in ["/nowhere/at/all", plain.path().to_str().unwrap(), "/dev/null"] {
                Tool::new(&tool).args(["--cgroup", path]).run().expect_error(1, &[path]);
            }
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        let pid = cgroup::free_pid().to_string();
        for tool in help::tools_with("--pid") {
            Tool::new(&tool).args(["--pid", &pid]).run().expect_error(1, &[&pid]);
            let both = format!("{},{pid}", std::process::id());
            Tool::new(&tool).args(["--pid", &both]).run().expect_error(1, &[&pid]);
        }
    }

    #[test]
    fn check_says_what_it_would_do_and_does_nothing() {
        for tool in env::tools() {
            let text = Tool::new(&tool).arg("--check").run().expect(0).silent().out();
            assert!(text.contains("chosen"), "{text}");
            let forced = env::probe().unwrap_or_default();
            assert!(text.lines().any(|line| line.contains(&forced) && line.contains("chosen")), "{text}");
            assert!(!text.contains("Tracing"), "{text}");
        }
    }

    #[test]
    fn nothing_is_left_behind_whatever_the_end() {
        for tool in env::tools() {
            for signal in [libc::SIGINT, libc::SIGKILL] {
                let mounts = || fs::read_to_string("/proc/1/mountinfo").unwrap();
                let (mounted, pinned) = (mounts(), bpf::pinned());
                let running = Tool::new(&tool).start();
                let held = bpf::held_by(running.pid());
                let kinds = |kind| held.iter().filter(|(k, _)| *k == kind).count();
                assert!(kinds("prog") > 0 && kinds("map") > 0 && kinds("link") > 0, "{tool}: {held:?}");
                assert_eq!(
                    (mounts(), bpf::pinned()),
                    (mounted.clone(), pinned.clone()),
                    "{tool} while it runs"
                );
                running.signal(signal);
                drop(running.wait());
                let left = || held.iter().filter(|object| bpf::is_there(**object)).count();
                wait_until("its programs, maps and links are gone", || (left() == 0).then_some(()));
                assert_eq!((mounts(), bpf::pinned()), (mounted, pinned), "{tool} afterwards");
            }
        }
    }

    /// Each interval makes it run, wait for a CPU, and whatever else.
    #[test]
    fn it_never_reports_itself() {
        for tool in env::tools() {
            let _noise = Noise::new();
            let by_pid = help::has(&help::of(&tool), "--pids");
            let args = if by_pid { "--json --pids 0.1 10" } else { "--json" };
            let running = Tool::new(&tool).words(args).start();
            let ended = if by_pid {
                running.wait()
            } else {
                let enough = || (running.so_far().lines().count() > 200).then_some(());
                eventually(std::time::Duration::from_secs(2), enough);
                running.stop()
            };
            let own = u64::from(ended.pid);
            let ended = ended.expect(0);
            assert!(ended.records().len() > 1, "{}", ended.story());
            assert!(!ended.records().iter().any(|record| record.pid() == Some(own)), "{tool} reports itself");
        }
    }

    #[test]
    fn a_commands_exit_status_is_passed_on() {
        for tool in help::tools_with_command() {
            for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
                let ended =
                    Tool::new(&tool).args(["--json", "--", "/bin/sh", "-c", script]).run().expect(code);
                check_whole(&ended);
            }
            let ended = Tool::new(&tool).args(["--", "/nowhere/at/all"]).run();
            assert!(!matches!(ended.status.code(), Some(0 | 2) | None), "{}", ended.story());
            assert_eq!(ended.err_lines().len(), 1, "{}", ended.story());
            assert!(ended.err().contains("/nowhere/at/all"), "{}", ended.story());
        }
    }

    /// A terminal's Ctrl-C gets to both; `kill` only to the tool, which passes it on. The command's end is
    /// the run's, and what was seen is printed.
    #[test]
    fn a_signal_ends_the_command_and_the_run() {
        for tool in help::tools_with_command() {
            for (signal, code) in [(None, 130), (Some(libc::SIGINT), 130), (Some(libc::SIGTERM), 143)] {
                let running = Tool::new(&tool).words("--json -- sleep 1000").in_own_group().start();
                let stat = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let children = format!("/proc/{0}/task/{0}/children", running.pid());
                let child = wait_until("the command runs", || {
                    let pid = fs::read_to_string(&children).ok()?.split_whitespace().next()?.to_owned();
                    stat(&pid).contains("(sleep)").then_some(pid)
                });
                signal.map_or_else(|| running.ctrl_c(), |signal| running.signal(signal));
                check_whole(&running.wait().expect(code).silent_but_for_losses());
                assert!(!stat(&child).contains("(sleep)"), "the command is still there");
            }
        }
    }

    /// A name given to `--` is looked for as a shell does it.
    #[test]
    fn a_command_is_found_by_its_name() {
        for tool in help::tools_with_command() {
            assert!(Path::new("/bin/sh").exists());
            drop(Tool::new(&tool).args(["--", "sh", "-c", "exit 3"]).run().expect(3));
        }
    }
}
