//! Programs in other roots and namespaces: their files are not at the paths that they name.

mod program;

#[cfg(test)]
mod root {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::process::Command;

    use stack::{Options, Symbols};
    use tracebelt_tests::{TempDir, skip};

    use crate::program::{Started, compile, label, must, note};

    fn symbols() -> Symbols {
        Symbols::new(Options::default())
    }

    /// A static program for a root of its own, and another one for the same path out here.
    fn two_programs(dir: &TempDir, extra: &[&str]) -> Option<std::path::PathBuf> {
        let inside = Path::new(&dir.dir("root")).join("app");
        let flags = [extra, &["-static", "-DSTATIC"]].concat();
        compile("stack.c", &inside, &flags)?;
        compile("stack.c", &dir.path().join("app"), &["-static", "-DSTATIC", "-DNAMED=somebody_else"])?;
        Some(inside)
    }

    #[test]
    fn a_chroot_has_its_own_files() {
        let dir = TempDir::new();
        let Some(inside) = two_programs(&dir, &[]) else {
            skip!("no C compiler");
        };
        // The path that the program goes by in there is another program's out here.
        let outside = dir.path().join("app");
        let there = inside.parent().unwrap().join(outside.strip_prefix("/").unwrap());
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        fs::rename(&inside, &there).unwrap();
        let program = Started::new(Command::new("chroot").arg(inside.parent().unwrap()).arg(&outside));
        let named = program.address("named");
        let mut symbols = symbols();
        note(&mut symbols, program.pid());
        assert_eq!(label(&mut symbols, program.pid(), named), "named");
        let mut after = self::symbols();
        note(&mut after, program.pid());
        let (pid, _) = program.end();
        assert_eq!(label(&mut after, pid, named), "named");
    }

    #[test]
    fn a_mount_namespace_has_its_own_files() {
        let dir = TempDir::new();
        let Some(inside) = two_programs(&dir, &[]) else {
            skip!("no C compiler");
        };
        let outside = dir.path().join("app");
        let script = format!("mount --bind {} {} && exec {1}", inside.display(), outside.display());
        let program = Started::new(Command::new("unshare").args(["-m", "sh", "-c", &script]));
        let named = program.address("named");
        let mut symbols = symbols();
        note(&mut symbols, program.pid());
        let (pid, _) = program.end();
        assert_eq!(label(&mut symbols, pid, named), "named");
    }

    #[test]
    fn debug_information_is_looked_for_in_the_programs_root() {
        let dir = TempDir::new();
        let Some(inside) = two_programs(&dir, &["-Wl,--build-id"]) else {
            skip!("no C compiler");
        };
        let debug = dir.path().join("app.debug");
        must(Command::new("objcopy").arg("--only-keep-debug").args([&inside, &debug]));
        must(Command::new("objcopy").arg("--strip-all").arg(&inside));
        let notes = Command::new("readelf").arg("-n").arg(&inside).output().unwrap();
        let notes = String::from_utf8(notes.stdout).unwrap();
        let id = notes.split("Build ID: ").nth(1).unwrap().split_whitespace().next().unwrap();
        let root = inside.parent().unwrap();
        let program = Started::new(Command::new("chroot").arg(root).arg("/app"));
        let local = program.address("local");
        assert!(label(&mut symbols(), program.pid(), local).starts_with("[app+0x"));
        let file = root.join(format!("usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::copy(&debug, &file).unwrap();
        // Behind the code, where the last page is filled up: no function's.
        let maps = fs::read_to_string(format!("/proc/{}/maps", program.pid())).unwrap();
        let code = maps.lines().find(|line| line.contains("r-xp")).unwrap().split(' ').next().unwrap();
        let behind = u64::from_str_radix(code.split('-').nth(1).unwrap(), 16).unwrap() - 1;
        for lines in [false, true] {
            let mut symbols = Symbols::new(Options { lines });
            let frames = symbols.user(program.pid(), &[&[local], &[behind]]);
            assert_eq!(frames[0][0].label(), "local");
            assert!(frames[1][0].label().starts_with("[app+0x"), "{:?}", frames[1]);
        }
    }

    /// It names its perf map by the number that it sees itself.
    #[test]
    fn a_pid_namespace_has_its_own_numbers() {
        let dir = TempDir::new();
        let app = dir.path().join("app");
        if compile("jit.c", &app, &[]).is_none() {
            skip!("no C compiler");
        }
        // On a /tmp of its own: perf-1.map is a name that others may use. The program is out of sight there.
        let script = format!("exec 3<{}; mount -t tmpfs none /tmp && exec /proc/self/fd/3", app.display());
        let unshare = ["-m", "-p", "-f", "--mount-proc", "sh", "-c", &script];
        let program = Started::new(Command::new("unshare").args(unshare));
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", program.pid())).unwrap();
        let pid: u32 = children.trim().parse().unwrap();
        let code = program.address("code");
        let mut symbols = symbols();
        note(&mut symbols, pid);
        assert_eq!(label(&mut symbols, pid, code), "JS:*hot /srv/app.js:1:15");
        program.end();
        assert_eq!(label(&mut symbols, pid, code), "JS:*hot /srv/app.js:1:15");
    }

    #[test]
    fn somebody_elses_perf_map_is_not_believed() {
        let dir = TempDir::new();
        let app = dir.path().join("app");
        if compile("jit.c", &app, &["-DNO_MAP"]).is_none() {
            skip!("no C compiler");
        }
        let program = Started::new(&mut Command::new(&app));
        let map = format!("/tmp/perf-{}.map", program.pid());
        let code = program.address("code");
        fs::write(&map, format!("{code:x} 40 forged\n")).unwrap();
        fs::set_permissions(&map, fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::chown(&map, Some(12345), None).unwrap();
        let forged = label(&mut symbols(), program.pid(), code);
        std::os::unix::fs::chown(&map, Some(0), None).unwrap();
        let ours = label(&mut symbols(), program.pid(), code);
        fs::remove_file(&map).unwrap();
        assert_eq!((forged.as_str(), ours.as_str()), ("[anon]", "forged"));
    }
}
