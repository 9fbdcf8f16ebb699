//! offcputime: names of functions, whatever language and root, and of programs that are gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use tracebelt_tests::{
        Program, Running, Stack, TempDir, Tool, env, program, skip, stacks, usecs, wait_until, waits, within,
    };

    fn offcputime(program: &Program, args: &str) -> Running {
        Tool::new("offcputime").words(args).args(["-p", &program.pid().to_string()]).start()
    }

    /// 29 naps of 5 ms in `function`, called by `caller`.
    #[track_caller]
    fn check_naps(all: &[Stack], function: impl Fn(&str) -> bool, caller: impl Fn(&str) -> bool) {
        let called =
            |stack: &&Stack| stack.user.windows(2).any(|frames| function(&frames[0]) && caller(&frames[1]));
        let naps: Vec<&Stack> = all.iter().filter(called).collect();
        let sum = usecs(naps.iter().copied());
        assert!(waits(naps.iter().copied()) >= 29 && sum > 145_000.0 * 0.99, "{sum} us: {all:?}");
        assert!(naps.iter().all(|stack| stack.kernel_may_have("nanosleep")), "{naps:?}");
        let raw = |frame: &&String| frame.contains("_ZN") || frame.contains("_R") && frame.starts_with("_R");
        assert_eq!(naps.iter().flat_map(|stack| &stack.user).find(raw), None, "demangled");
    }

    #[test]
    fn cpp_is_demangled() {
        let Some(path) = program::built("names-cc") else {
            skip!("no C++ compiler when the tests were built")
        };
        let mut program = Program::start(&mut Command::new(path));
        let (tool, folded) = (offcputime(&program, "--json"), offcputime(&program, "-f"));
        program.run();
        let method = |frame: &str| frame == "space::Type<int>::method(int, char const*)";
        let all = stacks(&tool.stop().expect(0));
        check_naps(&all, method, |frame| frame == "main");
        // What is not mangled is not demangled.
        let i = |stack: &Stack| stack.user.windows(2).any(|two| two[0] == "i" && method(&two[1]));
        assert!(all.iter().any(i), "{all:?}");
        let folded = folded.stop().expect(0).out();
        assert!(folded.contains(";main;space::Type<int>::method(int,\\040char\\040const*);"), "{folded}");
    }

    #[test]
    fn rust_is_demangled() {
        let Some(path) = program::built("names-rs") else { skip!("rustc could not build it with the tests") };
        let mut program = Program::start(&mut Command::new(path));
        let tool = offcputime(&program, "--json");
        program.run();
        let method = |frame: &str| {
            frame.starts_with("<names::space::Type<") && frame.ends_with("> as names::space::Nap>::nap")
        };
        check_naps(&stacks(&tool.stop().expect(0)), method, |frame| frame == "names::main");
    }

    /// `file:line` of where `text` stands in a source in `programs`.
    fn place(source: &str, text: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(source);
        let code = fs::read_to_string(path).unwrap();
        let at = code.lines().position(|line| line.contains(text)).unwrap();
        format!("programs/{source}:{}", at + 1)
    }

    #[test]
    fn inlined_functions_and_lines_are_there_when_asked_for() {
        for (name, inlined, call, function, callee) in [
            ("names.cc", "space::inlined(long)", "\ti(usecs);", "space::Type<int>::method(", "inlined(5000)"),
            (
                "names.rs",
                "names::space::inlined",
                "thread::sleep(",
                "as names::space::Nap>::nap",
                "  inlined();",
            ),
        ] {
            let Some(path) = program::built(&name.replace('.', "-")) else {
                eprintln!("{name}: not built with the tests");
                continue;
            };
            let mut program = Program::start(&mut Command::new(path));
            let tools = ["--lines", "", "--json --lines", "-s"].map(|args| offcputime(&program, args));
            program.run();
            let [lines, plain, json, offsets] = tools.map(|tool| tool.stop().expect(0));
            let text = lines.out();
            let find = |what: &str| {
                let line = text.lines().find(|line| line.contains(what));
                line.unwrap_or_else(|| panic!("no {what}\n{text}"))
            };
            let line = find(&format!("{inlined} (inlined)"));
            assert!(line.ends_with(&place(name, call)), "{line:?}: {}", place(name, call));
            let line = find(function);
            assert!(line.ends_with(&place(name, callee)), "{line:?}: {}", place(name, callee));
            assert!(!plain.out().contains("inlined") && !plain.out().contains(name), "{}", plain.out());
            let all = stacks(&json);
            let at = |frame: &String| frame.contains(function);
            let stack = all.iter().find(|stack| stack.user.iter().any(at)).expect("the naps");
            let at = stack.user.iter().position(at).unwrap();
            assert!(stack.user[at - 1].starts_with(inlined), "inside of its function: {stack:?}");
            // `function+0x1f` in both halves, and nothing without a name has one.
            let text = offsets.out();
            let offset = |line: &str| {
                line.rsplit_once("+0x").is_some_and(|(_, hex)| u64::from_str_radix(hex, 16).is_ok())
            };
            for function in [function, "do_nanosleep"] {
                assert!(
                    text.lines().any(|line| line.contains(function) && offset(line)),
                    "{function}\n{text}"
                );
            }
            assert!(
                !plain.out().lines().any(|line| line.contains(function) && offset(line)),
                "{}",
                plain.out()
            );
        }
    }

    /// Its code is made at run time, and its names are in the perf map that it writes.
    #[test]
    fn javascript_has_the_names_of_its_perf_map() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/names.js");
        match Command::new("node").arg("--version").stdout(Stdio::null()).status() {
            Ok(status) if status.success() => {}
            _ => skip!("no node"),
        }
        // In the root of a guest /tmp may not be written to; that of a mount namespace may.
        let script = r#"exec 3<"$0"; mount -t tmpfs tmp /tmp && cat <&3 >/tmp/names.js && cd /tmp &&
                        exec node --perf-basic-prof --interpreted-frames-native-stack /tmp/names.js"#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(&source);
        let mut program = Program::start(&mut command);
        let tool = offcputime(&program, "--json");
        program.run();
        let all = stacks(&tool.stop().expect(0));
        let js = |frame: &String, name: &str| {
            frame.starts_with("JS:")
                && frame.contains(&format!("{name} "))
                && frame.contains("/tmp/names.js:")
        };
        let named = |stack: &Stack| {
            stack.user.windows(2).any(|two| js(&two[0], "readInner") && js(&two[1], "readOuter"))
        };
        let gate: Vec<&Stack> = all.iter().filter(|stack| named(stack)).collect();
        assert!(!gate.is_empty() && usecs(gate.iter().copied()) > 0.0, "{all:?}");
        assert!(
            gate.iter().all(|stack| stack.tid == program.pid() && stack.kernel_may_have("read")),
            "{gate:?}"
        );
    }

    fn end_to_end(all: &[Stack], pid: Option<u32>) {
        let naps = within(all, "nap_inner");
        naps.iter().for_each(|stack| stack.assert_called("nap_inner", "nap_outer"));
        let sum = usecs(naps.iter().copied());
        assert!(sum > 29.0 * 5000.0 * 0.99 && waits(naps.iter().copied()) >= 29, "{sum} us: {all:?}");
        assert!(naps.iter().all(|stack| pid.is_none_or(|pid| stack.pid == pid)), "{naps:?}");
        let unnamed = |frame: &&String| frame.starts_with("[app") || *frame == "[unknown]";
        assert_eq!(naps.iter().flat_map(|stack| &stack.user).find(unnamed), None);
    }

    /// A root of its own in mount and PID namespaces of its own, as in a container: the file that it runs is at
    /// no path that we could open, and at the path that it names there is another program.
    #[test]
    fn a_container_has_its_own_files_and_numbers() {
        let Some(inside) = program::built("waits-static") else { skip!("no static C library") };
        let dir = TempDir::new();
        let (root, app) = (dir.dir("root"), dir.join("app"));
        fs::copy(program::built("alternate").unwrap(), &app).unwrap();
        let script = r#"mount -t tmpfs none "$0" && mkdir -p "$0${1%/*}" && cp "$2" "$0$1" && exec chroot "$0" "$1" $3"#;
        let contained = |threads: &str| {
            let inside = inside.to_str().unwrap();
            let words = [
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                script,
                &root,
                &app,
                inside,
                threads,
            ];
            words.map(str::to_owned)
        };
        if !Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "true"])
            .status()
            .is_ok_and(|s| s.success())
        {
            skip!("no unshare that knows --kill-child");
        }
        let mut program =
            Program::start(Command::new("unshare").args(contained("nap:29:5000"))).of_its_child();
        let pid = program.pid();
        let (there, gone) = (offcputime(&program, "--json"), offcputime(&program, "--json"));
        program.run();
        end_to_end(&stacks(&there.stop().expect(0)), Some(pid));
        // And its file system with it.
        program.end();
        wait_until("it is gone", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
        end_to_end(&stacks(&gone.stop().expect(0)), Some(pid));
        // Started, seen and gone within the run.
        let tool =
            Tool::new("offcputime").words("--json -- unshare").args(contained("now nap:29:5000")).run();
        end_to_end(&stacks(&tool.expect(7)), None);
    }

    /// By the time that names are looked for, those of 50 ms are long gone.
    #[test]
    fn a_process_that_has_ended_keeps_its_names() {
        // Emulated, a tool needs as long as a program to look at it.
        let usecs_each = if env::is_tcg() { 1_000_000.0 } else { 50_000.0 };
        let words = program::waits_now(&format!("brief:7:{usecs_each}"));
        let ended = Tool::new("offcputime").words("--json --").args(words).run().expect(7);
        let all = stacks(&ended);
        let asleep = |stack: &&Stack| stack.comm == "exe" && stack.usecs > 0.9 * usecs_each;
        let children: Vec<&Stack> = all.iter().filter(asleep).collect();
        let pids: BTreeSet<u32> = children.iter().map(|stack| stack.pid).collect();
        assert_eq!(pids.len(), 7, "{}", ended.story());
        let (named, missed): (Vec<&Stack>, Vec<&Stack>) =
            children.iter().partition(|stack| stack.is_in("nap_inner"));
        named.iter().for_each(|stack| stack.assert_called("nap_inner", "nap_outer"));
        // Where the tool itself has to wait for a CPU it may come too late, and says that it does not know.
        assert!(missed.iter().all(|stack| stack.user == ["[unknown]"]), "{missed:?}");
        assert!(missed.is_empty() || env::is_busy() && missed.len() <= 3, "{}", ended.story());
    }

    /// Nor is the file there any more.
    #[test]
    fn a_program_that_was_removed_keeps_its_names() {
        let dir = TempDir::new();
        let app = dir.path().join("app");
        fs::copy(program::built("waits").unwrap(), &app).unwrap();
        let naps = if env::is_tcg() { "nap:29:50000" } else { "nap:29:5000" };
        let mut program = Program::start(Command::new(&app).args([naps, "poll"]));
        let tool = Tool::new("offcputime").words("--json -n nap").start();
        program.run();
        let pid = program.pid();
        program.end();
        fs::remove_file(&app).unwrap();
        let all: Vec<Stack> =
            stacks(&tool.stop().expect(0)).into_iter().filter(|stack| stack.pid == pid).collect();
        end_to_end(&all, Some(pid));
    }
}
