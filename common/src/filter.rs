//! Which tasks are wanted: from flags to `struct filter` and the maps of `bpf/lib/filter.bpf.h`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, Object, OpenObject};

use crate::cli::usage;
use crate::hook::{Hook, Via, Way};
use crate::kernel::Kernel;
use crate::{maps, proc};

/// For `TOOL -- CMD`: `bpf/lib/children.bpf.h`.
pub const CHILDREN: Hook = Hook {
    what: "children of the command",
    optional: false,
    ways: &[
        Way {
            via: Via::TpBtf("sched_process_fork"),
            progs: &["fork_btf", "free_btf"],
            needs: &[],
            blind: "",
        },
        Way {
            via: Via::RawTp("sched_process_fork"),
            progs: &["fork_raw", "free_raw"],
            needs: &[],
            blind: "",
        },
    ],
};

/// `TASK_COMM_LEN` without its NUL.
const COMM_MAX: usize = 15;
/// Entries of the maps as they are declared.
const ROOM: u32 = 8192;

/// What a user asked for. Everything given has to hold; of a list, any one.
#[derive(Debug, Default)]
pub struct Wanted {
    pub pids: Vec<u32>,
    pub tids: Vec<u32>,
    /// A text in the thread's name.
    pub comm: Option<String>,
    /// Ids of cgroups, descendants included.
    pub cgroups: Vec<u64>,
    /// A pinned map of cgroup ids, exact ones, as the peers' `--cgroupmap`.
    pub pinned: Option<PathBuf>,
    /// The command that is traced, and its children.
    pub command: Option<u32>,
}

/// `struct filter`, byte for byte.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    own: u32,
    tgid: u32,
    tid: u32,
    by_tgids: u8,
    by_tids: u8,
    by_cgroup: u8,
    comm_len: u8,
    comm_text: [u64; 2],
    comm_mask: [u64; 2],
}

// SAFETY: plain integers without padding (4 + 4 + 4 + 4 * 1 bytes, then words); every bit pattern is valid.
unsafe impl plain::Plain for Raw {}

impl Raw {
    /// Into a skeleton's own `struct filter`, of the same bytes.
    pub fn write_to<T: plain::Plain>(&self, filter: &mut T) {
        // SAFETY: `Raw` has no padding, see above.
        let bytes = unsafe { plain::as_bytes(self) };
        // Fails only for a T that is larger, which is none that was compiled from filter.bpf.h.
        let _ = plain::copy_from_bytes(filter, bytes);
    }
}

const UNDER: u8 = 1;
const EXACT: u8 = 2;

impl Wanted {
    /// # Errors
    /// A process, thread or pinned map is not there; a name that no thread can have.
    pub fn check(&self, kernel: &Kernel) -> Result<()> {
        proc::require_pids(&self.pids)?;
        proc::require_tids(&self.tids)?;
        let by_number = !self.pids.is_empty() || !self.tids.is_empty();
        if by_number && kernel.own_tgid() != std::process::id() {
            anyhow::bail!(
                "--pid and --tid are numbers of this container, the kernel counts in the host's: \
                 run on the host, or use --comm or --cgroup"
            );
        }
        match self.comm.as_deref() {
            Some("") => Err(usage("an empty name matches everything: leave it out")),
            Some(text) if text.len() > COMM_MAX => Err(usage(format!(
                "no thread's name contains '{text}': the kernel keeps {COMM_MAX} bytes of it"
            ))),
            _ => Ok(()),
        }
    }

    /// The constant part. `own`: the tool's tgid as the kernel numbers it.
    #[must_use]
    pub fn raw(&self, own: u32) -> Raw {
        let tgids = self.pids.len() + usize::from(self.command.is_some());
        let (tgid, by_tgids) = match (self.pids.as_slice(), tgids) {
            (_, 0) => (0, 0),
            ([only], 1) => (*only, 0),
            _ => (0, 1),
        };
        let (tid, by_tids) = match self.tids.as_slice() {
            [] => (0, 0),
            [only] => (*only, 0),
            _ => (0, 1),
        };
        let by_cgroup = match (&self.pinned, self.cgroups.is_empty()) {
            (Some(_), _) => EXACT,
            (None, false) => UNDER,
            (None, true) => 0,
        };
        let text = self.comm.as_deref().unwrap_or_default().as_bytes();
        Raw {
            own,
            tgid,
            tid,
            by_tgids,
            by_tids,
            by_cgroup,
            comm_len: text.len() as u8,
            comm_text: words(text),
            comm_mask: words(&vec![0xff; text.len()]),
        }
    }

    /// Before the load: room for long lists.
    ///
    /// # Errors
    /// libbpf refuses.
    pub fn prepare(&self, open: &mut OpenObject) -> Result<()> {
        for mut map in open.maps_mut() {
            let wanted = match map.name().to_str() {
                Some("filter_tgids") => self.pids.len(),
                Some("filter_tids") => self.tids.len(),
                Some("filter_cgroups") => self.cgroups.len(),
                Some("filter_pinned") => {
                    map.set_autocreate(self.pinned.is_some())?;
                    continue;
                }
                _ => continue,
            };
            if wanted > map.max_entries() as usize {
                map.set_max_entries(u32::try_from(wanted)?.saturating_add(ROOM))?;
            }
        }
        Ok(())
    }

    /// Before the first program is attached.
    ///
    /// # Errors
    /// A map refuses an entry; the pinned map is none, or of another shape.
    pub fn fill(&self, object: &Object) -> Result<()> {
        let tgids = maps::find(object, "filter_tgids")?;
        for tgid in self.pids.iter().chain(&self.command) {
            tgids.update(&tgid.to_ne_bytes(), &[1], MapFlags::ANY)?;
        }
        let tids = maps::find(object, "filter_tids")?;
        for tid in &self.tids {
            tids.update(&tid.to_ne_bytes(), &[1], MapFlags::ANY)?;
        }
        if let Some(path) = &self.pinned {
            let pinned = MapHandle::from_pinned_path(path)
                .with_context(|| format!("{} is no pinned BPF map", path.display()))?;
            anyhow::ensure!(
                pinned.map_type() == MapType::Hash && pinned.key_size() == 8 && pinned.value_size() == 8,
                "{} is no map of cgroup ids: a hash whose keys and values have 8 bytes each",
                path.display()
            );
            return maps::point_to(&maps::find(object, "filter_pinned")?, &pinned).with_context(|| {
                format!("{}: only a hash that was made with flags 0 will do", path.display())
            });
        }
        let cgroups = maps::find(object, "filter_cgroups")?;
        for id in &self.cgroups {
            cgroups.update(&id.to_ne_bytes(), &1_u64.to_ne_bytes(), MapFlags::ANY)?;
        }
        Ok(())
    }

    /// Nothing is filtered out but the tool itself.
    #[must_use]
    pub fn everything(&self) -> bool {
        self.raw(0) == Raw::default()
    }
}

/// Text as two little-endian words: as the BPF side reads `comm`, byte by byte.
fn words(text: &[u8]) -> [u64; 2] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(text) {
        *to = *from;
    }
    let word = |half: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[half * 8 + i]));
    [word(0), word(1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_is_a_constant_and_several_are_a_map() {
        let one = Wanted { pids: vec![7], ..Wanted::default() }.raw(1);
        assert_eq!((one.tgid, one.by_tgids, one.own), (7, 0, 1));
        let two = Wanted { pids: vec![7, 9], ..Wanted::default() }.raw(1);
        assert_eq!((two.tgid, two.by_tgids), (0, 1));
        let command = Wanted { command: Some(7), ..Wanted::default() }.raw(1);
        assert_eq!((command.tgid, command.by_tgids), (0, 1), "its children come later");
        assert!(Wanted::default().everything());
    }

    #[test]
    fn a_name_is_two_words_and_its_mask() {
        let raw = Wanted { comm: Some("kworker/u8".into()), ..Wanted::default() }.raw(0);
        assert_eq!(raw.comm_text[0].to_ne_bytes(), *b"kworker/");
        assert_eq!(raw.comm_mask[1].to_ne_bytes(), [0xff, 0xff, 0, 0, 0, 0, 0, 0]);
        assert_eq!(raw.comm_len, 10);
    }
}
