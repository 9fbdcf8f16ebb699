//! Compiles `programs/*` for the tests, with frame pointers as a distribution does that cares. Here and not in a
//! test: guests of the kernel matrix are emulated, and a compiler takes seconds there.

use std::path::{Path, PathBuf};
use std::process::Command;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    println!("cargo::rerun-if-changed=programs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    c("waits.c", &out.join("waits"), &[])?;
    c("alternate.c", &out.join("alternate"), &[])?;
    // Those that not every machine can compile: what they are for is skipped without them, and says why.
    perhaps(c("waits.c", &out.join("waits-static"), &["-static"]));
    perhaps(c("names.cc", &out.join("names-cc"), &["-g"]));
    perhaps(rust("names.rs", &out.join("names-rs")));
    Ok(())
}

fn c(source: &str, to: &Path, flags: &[&str]) -> Outcome {
    let mut build = cc::Build::new();
    build.cpp(source.ends_with(".cc")).opt_level(1).debug(false).warnings(true);
    let mut command = build.try_get_compiler()?.to_command();
    command.args(["-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread"]).args(flags);
    run(command.arg(Path::new("programs").join(source)).arg("-o").arg(to), to)
}

fn rust(source: &str, to: &Path) -> Outcome {
    let mut command = Command::new(std::env::var_os("RUSTC").ok_or("no RUSTC")?);
    command.args(["--edition=2024", "-g", "-Copt-level=1", "-Cforce-frame-pointers=yes"]);
    command.args(["--target", &std::env::var("TARGET")?]);
    run(command.arg(Path::new("programs").join(source)).arg("-o").arg(to), to)
}

fn run(command: &mut Command, to: &Path) -> Outcome {
    let _ = std::fs::remove_file(to); // of an earlier build
    let done = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr)).into())
}

fn perhaps(outcome: Outcome) {
    if let Err(error) = outcome {
        println!("cargo::warning={}", error.to_string().lines().next().unwrap_or_default());
    }
}
