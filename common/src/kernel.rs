//! What this kernel has and what it lets us do: asked by trying, never by version.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use anyhow::Result;
use libbpf_rs::ObjectBuilder;
use libbpf_rs::btf::types::{Enum, EnumMember, Func, FuncProto, MemberAttr, Ptr, Struct, Typedef};
use libbpf_rs::btf::{Btf, BtfType, ReferencesType as _};

use crate::exit::{Kind, fault};
use crate::privilege;

mod trial;

const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The running kernel, after it has let us load and run one small program.
pub struct Kernel {
    btf: Btf<'static>,
    /// `--btf`: where its types come from if not from itself.
    file: Option<PathBuf>,
    own_tgid: u32,
    storage: OnceCell<bool>,
}

impl Kernel {
    /// Loads a few instructions and runs them once: that tells the privilege, a lockdown that forbids
    /// reading kernel memory, and this process's tgid as the kernel numbers it. The types come from `file`
    /// if there is one (`--btf`).
    ///
    /// # Errors
    /// [`Kind::Privilege`] or [`Kind::Unsupported`], with the cause and the cure; [`Kind::Failed`] for a
    /// file that is no good.
    pub fn probe(file: Option<&Path>) -> Result<Kernel> {
        quiet_libbpf();
        let own_tgid =
            trial::own_tgid().map_err(|error| privilege::explain(&error, &privilege::Facts::read()))?;
        let btf = match file {
            Some(file) => types_in(file, own_tgid)?,
            None => own_types()?,
        };
        Ok(Kernel { btf, file: file.map(Path::to_owned), own_tgid, storage: OnceCell::new() })
    }

    /// Has libbpf relocate an object by the same types.
    ///
    /// # Errors
    /// The name of the file has a NUL in it.
    pub fn lend_types(&self, builder: &mut ObjectBuilder) -> Result<()> {
        if let Some(file) = &self.file {
            builder.btf_custom_path(file)?;
        }
        Ok(())
    }

    /// Typed programs and iterators name the kernel's types by numbers that only its own BTF tells.
    #[must_use]
    pub fn has_own_types(&self) -> bool {
        self.file.is_none()
    }

    /// This process in the initial PID namespace: what BPF programs see.
    #[must_use]
    pub fn own_tgid(&self) -> u32 {
        self.own_tgid
    }

    /// `btf_trace_NAME` is the type of the probes of the tracepoint NAME.
    fn tracepoint(&self, name: &str) -> Option<Typedef<'_>> {
        self.btf.type_by_name(&format!("btf_trace_{name}"))
    }

    /// Arguments of a tracepoint, without the `void *__data` that the typedef begins with; none if the
    /// kernel has no such tracepoint.
    #[must_use]
    pub fn tracepoint_args(&self, name: &str) -> Option<usize> {
        let pointer = Ptr::try_from(self.tracepoint(name)?.referenced_type()).ok()?;
        let proto = FuncProto::try_from(pointer.referenced_type()).ok()?;
        proto.len().checked_sub(1)
    }

    #[must_use]
    pub fn has_member(&self, of: &str, member: &str) -> bool {
        let Some(found) = self.btf.type_by_name::<Struct<'_>>(of) else {
            return false;
        };
        (0..found.len()).filter_map(|i| found.get(i)).any(|m| m.name.is_some_and(|name| name == member))
    }

    /// May a program write to a ring buffer while the run queue is locked?
    ///
    /// Not with PREEMPT_RT before 6.12, 8b62645b09f8 ("bpf: Use raw_spinlock_t in ringbuf"), which stable kernels
    /// got, too: there the ring has a `spinlock_t`, and that is a mutex.
    #[must_use]
    pub fn has_ring_anywhere(&self) -> bool {
        let sleeps = self.has_member("spinlock", "lock"); // an rt_mutex; elsewhere it is `rlock`, in a union
        !sleeps || self.member_type("bpf_ringbuf", "spinlock").is_none_or(|name| name != "spinlock_t")
    }

    /// The name of a member's type.
    fn member_type(&self, of: &str, member: &str) -> Option<String> {
        let found = self.btf.type_by_name::<Struct<'_>>(of)?;
        let members = (0..found.len()).filter_map(|i| found.get(i));
        let member = members.into_iter().find(|m| m.name.is_some_and(|name| name == member))?;
        let name = self.btf.type_by_id::<BtfType<'_>>(member.ty)?.name()?.to_str()?;
        Some(name.to_owned())
    }

    /// Has `enum bpf_func_id` the helper `BPF_FUNC_name`?
    #[must_use]
    pub fn has_helper(&self, name: &str) -> bool {
        let wanted = format!("BPF_FUNC_{name}");
        let Some(helpers) = self.btf.type_by_name::<Enum<'_>>("bpf_func_id") else {
            return false;
        };
        helpers.iter().any(|value| value.name.is_some_and(|name| name == wanted.as_str()))
    }

    /// The names and values of an enum, in its order; none if the kernel has no such enum.
    #[must_use]
    pub fn enum_values(&self, name: &str) -> Vec<(String, i64)> {
        let Some(found) = self.btf.type_by_name::<Enum<'_>>(name) else {
            return Vec::new();
        };
        let named = |value: EnumMember<'_>| Some((value.name?.to_string_lossy().into_owned(), value.value));
        found.iter().filter_map(named).collect()
    }

    /// The value of a name in whichever enum has it: for those without a name of their own.
    #[must_use]
    pub fn enum_value(&self, name: &str) -> Option<i64> {
        let mut enums = self.btf.type_by_kind::<Enum<'_>>();
        let value = |found: Enum<'_>| {
            found.iter().find(|value| value.name.is_some_and(|n| n == name)).map(|value| value.value)
        };
        enums.find_map(value)
    }

    /// Has BPF an atomic compare-and-exchange? Since 5.12, 5ffa25502b5a ("bpf: Add instructions for atomic_[cmp]xchg").
    #[must_use]
    pub fn has_cmpxchg(&self) -> bool {
        trial::cmpxchg().is_ok()
    }

    /// May a tracing program create task storage while the run queue is locked?
    ///
    /// Before 6.4, 08a7ce384e33 ("bpf: Use `bpf_mem_cache_alloc`/free in `bpf_local_storage_elem`"), a new
    /// element came from kmalloc(GFP_ATOMIC), which may wake kswapd and so take the very lock that is
    /// held. That commit brought `bpf_local_storage_map.bpf_ma`; `use_kmalloc_nolock` replaced it in
    /// 6.19 (f484f4a3e058).
    #[must_use]
    pub fn has_safe_task_storage(&self) -> bool {
        *self.storage.get_or_init(|| {
            let map = "bpf_local_storage_map";
            self.has_member(map, "bpf_ma") || self.has_member(map, "use_kmalloc_nolock")
        })
    }

    /// Can a program at a raw tracepoint be preempted? The kernel does not run it then for whatever comes on
    /// the same CPU before it goes on: it takes that for recursion, and counts it as skipped.
    ///
    /// Since 7.0, a46023d5616e ("tracing: Guard __DECLARE_TRACE() use of __DO_TRACE_CALL() with SRCU-fast"):
    /// before it there was no use for that guard's type. Classic tracepoints still turn preemption off.
    #[must_use]
    pub fn preempts_tracepoints(&self) -> bool {
        self.btf.type_by_name::<Typedef<'_>>("class_srcu_fast_notrace_t").is_some()
    }

    /// Loads two instructions as a `tp_btf` program: some architectures and policies refuse the type.
    ///
    /// # Errors
    /// Why not, in a few words.
    pub fn try_tp_btf(&self, name: &str) -> std::result::Result<(), String> {
        let Some(typedef) = self.tracepoint(name) else {
            return Err(no_tracepoint(name));
        };
        if !self.has_own_types() {
            return Err("typed programs need the kernel's own BTF, not a file (--btf)".to_owned());
        }
        trial::tp_btf(u32::from(typedef.type_id()))
            .map_err(|error| format!("the kernel refuses tp_btf programs: {error}"))
    }

    /// Raw tracepoints need no more than the tracepoint itself: since 4.17, and `Kernel::probe` has
    /// loaded one.
    ///
    /// # Errors
    /// Why not, in a few words.
    pub fn try_raw_tp(&self, name: &str) -> std::result::Result<(), String> {
        if self.tracepoint(name).is_none() {
            return Err(no_tracepoint(name));
        }
        Ok(())
    }

    /// Threads can be found in /proc, all of them, by the numbers that programs see.
    ///
    /// # Errors
    /// Why not, in a few words.
    pub fn try_proc(&self) -> std::result::Result<(), String> {
        let shown = std::fs::read_link("/proc/self").ok();
        whole_proc(self.own_tgid, shown.as_deref(), std::fs::read("/proc/1/stat").is_ok())
    }

    /// Loads and attaches two instructions at the entry of a function: types name many that then cannot be had.
    ///
    /// # Errors
    /// Why not, in a few words.
    pub fn try_fentry(&self, name: &str) -> std::result::Result<(), String> {
        let Some(target) = self.function(name) else {
            return Err(format!("this kernel has no function {name}"));
        };
        if !self.has_own_types() {
            return Err("typed programs need the kernel's own BTF, not a file (--btf)".to_owned());
        }
        trial::fentry(u32::from(target.type_id()))
            .map_err(|error| format!("the kernel refuses fentry programs: {error}"))
    }

    /// Not by name alone: there may be a struct of the same one.
    fn function(&self, name: &str) -> Option<Func<'_>> {
        self.btf.type_by_kind::<Func<'_>>().find(|f| f.name().is_some_and(|n| n == name))
    }

    /// Loads two instructions as an iterator over `task`, say.
    ///
    /// # Errors
    /// Why not, in a few words.
    pub fn try_iter(&self, over: &str, sleepable: bool) -> std::result::Result<(), String> {
        let Some(target) = self.function(&format!("bpf_iter_{over}")) else {
            return Err(format!("this kernel has no iterator over {over}"));
        };
        if !self.has_own_types() {
            return Err("iterators need the kernel's own BTF, not a file (--btf)".to_owned());
        }
        match trial::iter(u32::from(target.type_id()), sleepable) {
            Ok(()) => Ok(()),
            Err(error) if sleepable => Err(format!("the kernel refuses iterators that sleep: {error}")),
            Err(error) => Err(format!("the kernel refuses iterators: {error}")),
        }
    }
}

/// Does /proc number us as the kernel does, and show it the first process?
fn whole_proc(own: u32, shown: Option<&Path>, first: bool) -> std::result::Result<(), String> {
    match shown {
        Some(shown) if shown.to_str() == Some(own.to_string().as_str()) => {}
        Some(_) => return Err("the numbers in /proc are a container's: run on the host".to_owned()),
        None => return Err("no /proc is mounted".to_owned()),
    }
    if !first {
        return Err("/proc hides other users' processes (hidepid)".to_owned());
    }
    Ok(())
}

fn own_types() -> Result<Btf<'static>> {
    if !Path::new(VMLINUX_BTF).exists() {
        let cure = "boot one built with CONFIG_DEBUG_INFO_BTF=y, or give its types (--btf FILE)";
        let what = format!("this kernel has no BTF ({VMLINUX_BTF} is missing): {cure}");
        return Err(fault(Kind::Unsupported, what));
    }
    Btf::from_vmlinux().map_err(|e| fault(Kind::Unsupported, format!("cannot read the kernel's BTF: {e}")))
}

/// Another kernel's types would have every field read from a wrong place, so one is tried: this process's tgid
/// in its `task_struct`.
fn types_in(file: &Path, own_tgid: u32) -> Result<Btf<'static>> {
    let bad = |why: String| fault(Kind::Failed, format!("--btf {}: {why}", file.display()));
    std::fs::File::open(file).map_err(|e| bad(e.to_string()))?;
    let btf = Btf::from_path(file).map_err(|e| bad(format!("no BTF in it: {e}")))?;
    let place = member(&btf, "task_struct", "tgid").ok_or_else(|| bad("no kernel's types".to_owned()))?;
    if trial::current_task_u32(place / 8).ok() != Some(own_tgid) {
        return Err(bad("not the types of the kernel that runs here".to_owned()));
    }
    Ok(btf)
}

/// The place of a member, in bits.
fn member(btf: &Btf<'_>, of: &str, member: &str) -> Option<u32> {
    let found = btf.type_by_name::<Struct<'_>>(of)?;
    let member =
        (0..found.len()).filter_map(|i| found.get(i)).find(|m| m.name.is_some_and(|n| n == member))?;
    match member.attr {
        MemberAttr::Normal { offset } => Some(offset),
        MemberAttr::BitField { .. } => None,
    }
}

fn no_tracepoint(name: &str) -> String {
    format!("this kernel has no tracepoint {name}")
}

/// libbpf's own words go nowhere while we try things out; a failed load brings them back (object.rs).
fn quiet_libbpf() {
    libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Debug, crate::object::keep_log)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_proc_that_shows_all_threads_by_their_own_numbers_will_do() {
        let check = |shown, first| whole_proc(42, shown, first).err().unwrap_or_default();
        assert_eq!(check(Some(Path::new("42")), true), "");
        assert!(check(Some(Path::new("7")), true).contains("a container's"));
        assert!(check(Some(Path::new("42")), false).contains("hidepid"));
        assert!(check(None, false).contains("no /proc"));
    }
}
