//! Why the kernel would not load a program, in words that name the cure.

use std::fs;
use std::io;

use crate::exit::{Kind, fault};

pub const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// What tells one EPERM from another.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `CapEff` of /proc/self/status.
    pub capabilities: u64,
    /// `Seccomp` of /proc/self/status: 0 off, 1 strict, 2 filter.
    pub seccomp: u32,
    /// In a user namespace other than the first, where capabilities do not reach bpf(2).
    pub user_namespace: bool,
    /// The bracketed word of /sys/kernel/security/lockdown, if it says one.
    pub lockdown: Option<String>,
}

impl Facts {
    #[must_use]
    pub fn read() -> Facts {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Facts {
            user_namespace: is_nested(&file("/proc/self/uid_map")),
            lockdown: bracketed(&file("/sys/kernel/security/lockdown")),
            ..from_status(&file("/proc/self/status"))
        }
    }

    fn has(&self, capability: u32) -> bool {
        self.capabilities >> capability & 1 == 1
    }

    fn missing(&self) -> Vec<&'static str> {
        if self.has(CAP_SYS_ADMIN) {
            return Vec::new();
        }
        let both = [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")];
        both.into_iter().filter(|(bit, _)| !self.has(*bit)).map(|(_, name)| name).collect()
    }
}

fn from_status(status: &str) -> Facts {
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or_default()
    };
    Facts {
        capabilities: u64::from_str_radix(field("CapEff:"), 16).unwrap_or_default(),
        seccomp: field("Seccomp:").parse().unwrap_or_default(),
        ..Facts::default()
    }
}

/// The first user namespace maps all ids onto themselves: "0 0 4294967295".
fn is_nested(uid_map: &str) -> bool {
    let fields: Vec<&str> = uid_map.split_whitespace().collect();
    !fields.is_empty() && fields != ["0", "0", "4294967295"]
}

fn bracketed(lockdown: &str) -> Option<String> {
    let (_, rest) = lockdown.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

/// An error with its exit code for a first program that the kernel refused with `error`.
#[must_use]
pub fn explain(error: &io::Error, facts: &Facts) -> anyhow::Error {
    let missing = facts.missing();
    let errno = error.raw_os_error().unwrap_or_default();
    if errno == libc::ENOSYS {
        return fault(
            Kind::Unsupported,
            "this kernel has no bpf(2), or a seccomp filter hides it: boot one with CONFIG_BPF_SYSCALL=y",
        );
    }
    if facts.lockdown.as_deref() == Some("confidentiality") {
        return fault(
            Kind::Unsupported,
            "kernel lockdown is in confidentiality mode, which forbids BPF to read kernel memory: \
             boot without lockdown=confidentiality",
        );
    }
    if errno == libc::EPERM || errno == libc::EACCES {
        return fault(Kind::Privilege, denied(&missing, facts));
    }
    fault(Kind::Failed, format!("the kernel refused a first small BPF program: {error}"))
}

fn denied(missing: &[&str], facts: &Facts) -> String {
    if !missing.is_empty() {
        return format!(
            "{} missing: run as root, or give the binary cap_bpf,cap_perfmon+ep with setcap",
            missing.join(" and ")
        );
    }
    if facts.user_namespace {
        return "capabilities of a user namespace do not reach bpf(2): run in the host's user namespace"
            .to_owned();
    }
    if facts.seccomp == 2 {
        return "a seccomp filter forbids bpf(2): allow bpf and perf_event_open in the container's profile"
            .to_owned();
    }
    "the kernel forbids bpf(2) although the capabilities are there: a security module (SELinux, AppArmor, \
     BPF LSM) decides so; its log (dmesg, audit.log) names the rule"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Verdict, verdict};

    const ALL: u64 = 0x1ff_ffff_ffff;

    fn told(errno: i32, facts: &Facts) -> (Verdict, String) {
        let error = explain(&io::Error::from_raw_os_error(errno), facts);
        (verdict(&error), error.to_string())
    }

    #[test]
    fn the_missing_capability_is_named() {
        let only_bpf = Facts { capabilities: 1 << CAP_BPF, ..Facts::default() };
        let (verdict, text) = told(libc::EPERM, &only_bpf);
        assert_eq!(verdict, Verdict::Report(Kind::Privilege));
        assert!(text.starts_with("CAP_PERFMON missing: run as root"), "{text}");
        let (_, text) = told(libc::EPERM, &Facts::default());
        assert!(text.starts_with("CAP_BPF and CAP_PERFMON missing"), "{text}");
    }

    #[test]
    fn eperm_with_all_capabilities_is_told_apart() {
        let nested = Facts { capabilities: ALL, user_namespace: true, seccomp: 2, ..Facts::default() };
        assert!(told(libc::EPERM, &nested).1.contains("user namespace"));
        let filtered = Facts { capabilities: ALL, seccomp: 2, ..Facts::default() };
        assert!(told(libc::EPERM, &filtered).1.contains("seccomp"));
        let neither = Facts { capabilities: ALL, ..Facts::default() };
        assert!(told(libc::EPERM, &neither).1.contains("security module"));
    }

    #[test]
    fn lockdown_is_the_kernels_policy_whatever_errno_it_chose() {
        let facts = Facts { capabilities: ALL, lockdown: Some("confidentiality".into()), ..Facts::default() };
        for errno in [libc::EINVAL, libc::EPERM] {
            let (verdict, text) = told(errno, &facts);
            assert_eq!(verdict, Verdict::Report(Kind::Unsupported));
            assert!(text.contains("lockdown"), "{text}");
        }
    }

    #[test]
    fn the_files_are_read() {
        let status = "Name:\tx\nCapEff:\t000001ffffffffff\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let facts = from_status(status);
        assert_eq!((facts.capabilities, facts.seccomp), (ALL, 2));
        assert!(!is_nested("         0          0 4294967295\n"));
        assert!(is_nested("0 100000 65536\n"));
        assert_eq!(bracketed("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
    }
}
