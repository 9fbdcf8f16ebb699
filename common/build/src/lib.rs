//! From `bpf/TOOL.bpf.c` to the Rust skeleton that a tool includes.
//!
//! Environment: `BPF_CLANG` names the compiler (else clang-19 down to clang-16, then `clang`),
//! `BPF_WERROR=0` lets warnings pass: for packagers with a compiler newer than ours.

#![allow(clippy::print_stdout, reason = "a build script speaks to cargo on stdout")]

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use libbpf_cargo::SkeletonBuilder;

pub use anyhow::Error;

/// The oldest clang that keeps the upper half of 64-bit enums in BTF (it emits `ENUM64`).
const OLDEST_CLANG: u32 = 16;

/// What a tool includes: the skeleton, which no lint of ours is meant for.
const WRAPPER: &str = "\
#[allow(clippy::all, clippy::pedantic, clippy::restriction, warnings, unused_qualifications)]
mod skeleton {
    include!(concat!(env!(\"OUT_DIR\"), \"/skeleton.rs\"));
}
pub use skeleton::*;
";

/// Compiles `bpf/TOOL.bpf.c` and writes the skeleton for `include!` to `$OUT_DIR/bpf.rs`.
///
/// # Errors
/// No usable clang, or the program does not compile; the message names the cure.
pub fn skeleton(tool: &str) -> Result<()> {
    let root = workspace_root()?;
    let source = root.join("bpf").join(format!("{tool}.bpf.c"));
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set: run by cargo")?);
    let deps = out.join("bpf.d");
    let clang = clang()?;

    println!("cargo:rerun-if-env-changed=BPF_CLANG");
    println!("cargo:rerun-if-env-changed=BPF_WERROR");
    SkeletonBuilder::new()
        .source(&source)
        .clang(&clang)
        .clang_args(clang_args(&root, &deps))
        // The object is read from OUT_DIR by include_bytes!, not spelled out in Rust source.
        .reference_obj(true)
        .rustfmt("no-rustfmt-for-generated-code")
        .build_and_generate(out.join("skeleton.rs"))
        .with_context(|| format!("{} does not compile with {}", source.display(), clang.display()))?;

    fs::write(out.join("bpf.rs"), WRAPPER).context("cannot write bpf.rs")?;

    // clang knows what it read; a hand-kept list of headers would lie one day.
    let listed = fs::read_to_string(&deps).with_context(|| format!("cannot read {}", deps.display()))?;
    for path in dependencies(&listed) {
        if Path::new(path).starts_with(&root) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    Ok(())
}

fn workspace_root() -> Result<PathBuf> {
    let here = env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set: run by cargo")?;
    let here = PathBuf::from(here);
    let root = here.ancestors().find(|dir| dir.join("bpf/lib").is_dir());
    Ok(root.with_context(|| format!("no bpf/lib above {}", here.display()))?.to_path_buf())
}

fn clang_args(root: &Path, deps: &Path) -> Vec<OsString> {
    let mut args: Vec<OsString> =
        ["-Wall", "-Wextra", "-Wno-unused-parameter", "-mcpu=v3"].map(Into::into).into();
    if env::var_os("BPF_WERROR").is_none_or(|v| v != "0") {
        args.push("-Werror".into());
    }
    for dir in ["vmlinux", "bpf/lib"] {
        args.push("-I".into());
        args.push(root.join(dir).into());
    }
    args.extend(["-MD".into(), "-MF".into(), deps.into()]);
    args
}

fn clang() -> Result<PathBuf> {
    if let Some(named) = env::var_os("BPF_CLANG") {
        return Ok(named.into());
    }
    for name in ["clang-19", "clang-18", "clang-17", "clang-16", "clang"] {
        let Ok(output) = Command::new(name).arg("--version").output() else {
            continue;
        };
        match major(&String::from_utf8_lossy(&output.stdout)) {
            Some(version) if version >= OLDEST_CLANG => return Ok(name.into()),
            _ => {}
        }
    }
    bail!(
        "no clang of version {OLDEST_CLANG} or newer on PATH: install one (Debian 12: clang-19) or set BPF_CLANG"
    );
}

/// `19` from "Debian clang version 19.1.7 (3~deb12u1)".
fn major(version: &str) -> Option<u32> {
    let (_, after) = version.split_once("clang version ")?;
    after.split('.').next()?.parse().ok()
}

/// The paths in a make rule as clang's `-MD` writes it: `target: a b \` and more lines.
fn dependencies(rule: &str) -> impl Iterator<Item = &str> {
    let list = rule.split_once(": ").map_or("", |(_, list)| list);
    list.split_whitespace().filter(|word| *word != "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_each_vendor() {
        assert_eq!(major("Debian clang version 19.1.7 (3~deb12u1)\nTarget: x86_64"), Some(19));
        assert_eq!(major("clang version 16.0.6"), Some(16));
        assert_eq!(major("gcc 12"), None);
    }

    #[test]
    fn a_make_rule_is_split_into_its_paths() {
        let rule = "/out/x.o: /src/bpf/x.bpf.c \\\n  /src/vmlinux/vmlinux.h /src/bpf/lib/hist.bpf.h\n";
        let paths: Vec<_> = dependencies(rule).collect();
        assert_eq!(paths, ["/src/bpf/x.bpf.c", "/src/vmlinux/vmlinux.h", "/src/bpf/lib/hist.bpf.h"]);
    }
}
