//! Addresses that are known in advance get the names that are known in advance.

mod program;

use std::fs;
use std::process::Command;

use program::{Started, compile, label, must, note, one};
use stack::{Options, Space, Symbols, ended_early};
use tracebelt_tests::{TempDir, skip};

const LINES: Options = Options { lines: true };

fn symbols() -> Symbols {
    Symbols::new(Options::default())
}

/// Generic, so that its name says how much of it was demangled.
#[inline(never)]
fn generic<T: Default>() -> T {
    T::default()
}

#[test]
fn our_own_functions_have_names() {
    let address = generic::<Vec<u8>> as fn() -> Vec<u8> as usize as u64;
    let frame = one(&mut symbols(), std::process::id(), address);
    let name = frame.name.as_deref().unwrap();
    assert!(name.starts_with("names::generic") && !name.contains("_ZN") && !name.contains("_R"), "{name}");
    assert_eq!((frame.space, frame.offset), (Space::User, 0));
    assert_eq!(frame.module.as_deref(), std::env::current_exe().unwrap().to_str());
}

#[test]
fn a_program_that_has_ended_keeps_its_names() {
    let dir = TempDir::new();
    let app = dir.path().join("app");
    if compile("stack.c", &app, &[]).is_none() {
        skip!("no C compiler");
    }
    let mut symbols = symbols();
    let program = Started::new(&mut Command::new(&app));
    note(&mut symbols, program.pid());
    let (pid, said) = program.end();
    let name = |symbols: &mut Symbols, index: usize| label(symbols, pid, said[index].1);
    assert_eq!(name(&mut symbols, 0), "named");
    assert_eq!(name(&mut symbols, 1), "local");
    assert!(name(&mut symbols, 2).contains("clock_nanosleep"));
    assert_eq!(one(&mut symbols, pid, said[0].1).offset, 3);
}

#[test]
fn a_program_that_has_ended_and_was_deleted_keeps_its_names() {
    let dir = TempDir::new();
    let app = dir.path().join("app");
    if compile("stack.c", &app, &[]).is_none() {
        skip!("no C compiler");
    }
    let mut symbols = symbols();
    let program = Started::new(&mut Command::new(&app));
    note(&mut symbols, program.pid());
    let named = program.address("named");
    let (pid, _) = program.end();
    fs::remove_file(&app).unwrap();
    assert_eq!(label(&mut symbols, pid, named), "named");
}

/// Such as a package that is upgraded while a program runs.
#[test]
fn a_file_that_was_replaced_gives_no_wrong_names() {
    let dir = TempDir::new();
    let (app, other) = (dir.path().join("app"), dir.path().join("other"));
    if compile("stack.c", &app, &[]).is_none() {
        skip!("no C compiler");
    }
    compile("stack.c", &other, &["-DNAMED=somebody_else"]).unwrap();
    let program = Started::new(&mut Command::new(&app));
    let (pid, named) = (program.pid(), program.address("named"));
    let (mut early, mut late) = (symbols(), symbols());
    note(&mut early, pid);
    fs::rename(&other, &app).unwrap();
    assert_eq!(label(&mut early, pid, named), "named");
    // Deleted when first seen: read through the process, where that is allowed, else left without.
    let name = label(&mut late, pid, named);
    assert!(name == "named" || name.starts_with("[app+0x"), "{name}");
    drop(program);
    assert_eq!(label(&mut early, pid, named), "named");
}

#[test]
fn what_was_not_seen_in_time_is_unknown_and_not_guessed() {
    let dir = TempDir::new();
    let app = dir.path().join("app");
    if compile("stack.c", &app, &[]).is_none() {
        skip!("no C compiler");
    }
    let program = Started::new(&mut Command::new(&app));
    let named = program.address("named");
    let (pid, _) = program.end();
    assert_eq!(label(&mut symbols(), pid, named), "[unknown]");
}

#[test]
fn a_program_that_calls_exec_has_the_names_of_both() {
    let dir = TempDir::new();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    if compile("stack.c", &first, &[]).is_none() {
        skip!("no C compiler");
    }
    compile("stack.c", &second, &["-DNAMED=after_exec"]).unwrap();
    // The shell keeps the process that it has become known by.
    let script = format!("echo ready 0; read line; exec {}", second.display());
    let mut program = Started::new(Command::new("sh").args(["-c", &script]));
    let mut symbols = symbols();
    note(&mut symbols, program.pid());
    program.go();
    program.listen();
    symbols.note_again(program.pid());
    symbols.user(program.pid(), &[]);
    let named = program.address("named");
    let (pid, _) = program.end();
    assert_eq!(label(&mut symbols, pid, named), "after_exec");
}

#[test]
fn the_first_thread_may_have_ended() {
    let dir = TempDir::new();
    let app = dir.path().join("app");
    if compile("threads.c", &app, &["-pthread"]).is_none() {
        skip!("no C compiler");
    }
    let program = Started::new(&mut Command::new(&app));
    assert_eq!(label(&mut symbols(), program.pid(), program.address("named")), "named");
}

#[test]
fn stripped_programs_have_the_names_of_their_debug_link() {
    let dir = TempDir::new();
    let (app, debug) = (dir.path().join("app"), dir.path().join("app.debug"));
    // Without a build id there is but the link.
    if compile("stack.c", &app, &["-g", "-Wl,--build-id=none"]).is_none() {
        skip!("no C compiler");
    }
    must(Command::new("objcopy").arg("--only-keep-debug").args([&app, &debug]));
    must(Command::new("objcopy").arg("--strip-all").arg(&app));
    let stripped = Started::new(&mut Command::new(&app));
    let unnamed = label(&mut symbols(), stripped.pid(), stripped.address("local"));
    drop(stripped);
    assert!(unnamed.starts_with("[app+0x"), "{unnamed}");
    must(Command::new("objcopy").arg(format!("--add-gnu-debuglink={}", debug.display())).arg(&app));
    let program = Started::new(&mut Command::new(&app));
    for options in [Options::default(), LINES] {
        let mut symbols = Symbols::new(options);
        assert_eq!(label(&mut symbols, program.pid(), program.address("local")), "local");
        assert_eq!(label(&mut symbols, program.pid(), program.address("named")), "named");
    }
    // Of another build: no names, and above all no wrong ones.
    compile("stack.c", &debug, &["-g", "-DNAMED=somebody_else"]).unwrap();
    for options in [Options::default(), LINES] {
        assert_eq!(label(&mut Symbols::new(options), program.pid(), program.address("local")), unnamed);
    }
}

#[test]
fn cpp_is_demangled() {
    let dir = TempDir::new();
    let app = dir.path().join("app");
    if compile("space.cc", &app, &[]).is_none() {
        skip!("no C++ compiler");
    }
    let program = Started::new(&mut Command::new(&app));
    let name = label(&mut symbols(), program.pid(), program.address("method"));
    assert_eq!(name, "space::Type<int>::method(int, char const*)");
}

#[test]
fn the_vdso_has_names() {
    let dir = TempDir::new();
    let app = dir.path().join("app");
    if compile("stack.c", &app, &[]).is_none() {
        skip!("no C compiler");
    }
    let program = Started::new(&mut Command::new(&app));
    if program.all("vdso").is_empty() {
        skip!("no vdso");
    }
    let frame = one(&mut symbols(), program.pid(), program.address("vdso"));
    assert!(frame.name.as_deref().is_some_and(|name| name.contains("clock_gettime")), "{frame:?}");
    assert_eq!(frame.module.as_deref(), Some("[vdso]"));
}

#[test]
fn a_call_that_ends_its_function_is_not_the_next_functions() {
    let dir = TempDir::new();
    let app = dir.path().join("app");
    if compile("noreturn.c", &app, &["-O1", "-falign-functions=1", "-fno-toplevel-reorder"]).is_none() {
        skip!("no C compiler");
    }
    let program = Started::new(&mut Command::new(&app));
    let back = program.address("return");
    assert_eq!(back, program.address("behind"), "this test needs the functions side by side");
    let stack = [program.address("at"), back];
    let frames = symbols().user(program.pid(), &[&stack]).remove(0);
    let labels: Vec<_> = frames.iter().map(|frame| frame.label().into_owned()).collect();
    assert_eq!(labels, ["last", "ends_with_a_call"]);
    assert!(frames[1].offset > 0);
}

#[test]
fn a_whole_stack_is_whole_and_one_without_frame_pointers_is_not() {
    let dir = TempDir::new();
    let app = dir.path().join("walk");
    let walk = |flag: &str| {
        compile("walk.c", &app, &["-O2", flag])?;
        let program = Started::new(&mut Command::new(&app));
        let stack: Vec<u64> = program.said.iter().map(|(_, address)| *address).collect();
        let frames = symbols().user(program.pid(), &[&stack]).remove(0);
        let labels: Vec<_> = frames.iter().map(|frame| frame.label().into_owned()).collect();
        Some((labels, ended_early(&frames).map(str::to_owned)))
    };
    let Some((labels, early)) = walk("-fno-omit-frame-pointer") else {
        skip!("no C compiler");
    };
    assert_eq!(labels[..4], ["inner", "middle", "outer", "main"]);
    assert_eq!(early, None, "{labels:?}");
    let (labels, early) = walk("-fomit-frame-pointer").unwrap();
    assert_eq!(early.as_deref(), Some("walk"), "{labels:?}");
}

#[test]
fn inlined_functions_and_lines_are_there_when_asked_for() {
    let dir = TempDir::new();
    let app = dir.path().join("app");
    if compile("inlined.c", &app, &["-g", "-O2"]).is_none() {
        skip!("no C compiler");
    }
    let program = Started::new(&mut Command::new(&app));
    let stack = [program.address("at"), program.address("return")];
    let frame = symbols().user(program.pid(), &[&stack])[0][1].clone();
    assert_eq!((frame.label().as_ref(), frame.inlined.len(), &frame.place), ("around", 0, &None));
    let frame = Symbols::new(LINES).user(program.pid(), &[&stack])[0][1].clone();
    let inlined: Vec<_> = frame.inlined.iter().map(|inlined| inlined.name.as_str()).collect();
    assert_eq!((frame.label().as_ref(), &inlined[..]), ("around", &["innermost", "between"][..]));
    let lines = frame.inlined.iter().map(|inlined| &inlined.place).chain([&frame.place]);
    let lines: Vec<_> = lines.map(|place| place.as_ref().unwrap()).collect();
    assert_eq!(lines.iter().map(|place| place.line).collect::<Vec<_>>(), [15, 21, 26]);
    assert!(lines.iter().all(|place| place.file.ends_with("tests/program/inlined.c")), "{lines:?}");
}

#[test]
fn code_made_at_run_time_has_the_names_of_its_perf_map() {
    let dir = TempDir::new();
    let app = dir.path().join("app");
    if compile("jit.c", &app, &[]).is_none() {
        skip!("no C compiler");
    }
    let program = Started::new(&mut Command::new(&app));
    let mut symbols = symbols();
    note(&mut symbols, program.pid());
    let code = program.address("code");
    let frame = one(&mut symbols, program.pid(), code);
    assert_eq!(
        (frame.label().as_ref(), frame.space, frame.offset),
        ("JS:*hot /srv/app.js:1:15", Space::Jit, 8)
    );
    assert_eq!(label(&mut symbols, program.pid(), code + 64), "[anon]", "a line that is not finished");
    let (pid, _) = program.end();
    assert_eq!(label(&mut symbols, pid, code), "JS:*hot /srv/app.js:1:15", "ended, and its map deleted");
}

#[test]
fn a_perf_map_that_is_a_pipe_does_not_hold_us_up() {
    let dir = TempDir::new();
    let app = dir.path().join("app");
    if compile("jit.c", &app, &["-DNO_MAP"]).is_none() {
        skip!("no C compiler");
    }
    let program = Started::new(&mut Command::new(&app));
    let map = format!("/tmp/perf-{}.map", program.pid());
    must(Command::new("mkfifo").arg(&map));
    let name = label(&mut symbols(), program.pid(), program.address("code"));
    fs::remove_file(&map).unwrap();
    assert_eq!(name, "[anon]");
}

#[test]
fn a_stopped_search_leaves_addresses_in_their_files() {
    let dir = TempDir::new();
    let app = dir.path().join("app");
    if compile("stack.c", &app, &[]).is_none() {
        skip!("no C compiler");
    }
    let program = Started::new(&mut Command::new(&app));
    let mut symbols = symbols();
    note(&mut symbols, program.pid());
    symbols.stop_when(|| true);
    let name = label(&mut symbols, program.pid(), program.address("named"));
    assert!(name.starts_with("[app+0x") && symbols.stopped(), "{name}");
}

#[test]
fn stacks_come_back_in_their_order_and_shape() {
    let dir = TempDir::new();
    let app = dir.path().join("app");
    if compile("stack.c", &app, &[]).is_none() {
        skip!("no C compiler");
    }
    let program = Started::new(&mut Command::new(&app));
    let (named, local) = (program.address("named"), program.address("local"));
    let stacks: [&[u64]; 4] = [&[named, local, named], &[], &[1], &[local]];
    let frames = symbols().user(program.pid(), &stacks);
    let labels: Vec<Vec<_>> =
        frames.iter().map(|stack| stack.iter().map(|frame| frame.label().into_owned()).collect()).collect();
    let expected: [&[&str]; 4] = [&["named", "local", "named"], &[], &["[unknown]"], &["local"]];
    assert_eq!(labels, expected);
}
