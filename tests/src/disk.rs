//! Block devices whose every request is known: loop devices over files, read and written directly.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Ended, TempDir, env, wait_until};

/// What direct I/O is aligned to, and the unit of everything here.
pub const BLOCK: usize = 4096;

/// A loop device over a file of its own; taken away on drop.
pub struct Loop {
    dir: TempDir,
    pub device: PathBuf,
}

impl Loop {
    /// # Errors
    /// This machine has no loop devices; why.
    pub fn new(megabytes: u64) -> Result<Loop, String> {
        Loop::with(megabytes, |_| ())
    }

    /// With two partitions, of 1 MiB at 1 MiB and of 2 MiB at 4 MiB.
    ///
    /// # Errors
    /// As [`Loop::new`].
    pub fn partitioned() -> Result<Loop, String> {
        Loop::with(8, |file| {
            let mut table = vec![0_u8; 512];
            for (i, (start, sectors)) in [(2048_u32, 2048_u32), (8192, 4096)].into_iter().enumerate() {
                let entry = &mut table[446 + i * 16..][..16];
                entry[4] = 0x83;
                entry[8..12].copy_from_slice(&start.to_le_bytes());
                entry[12..].copy_from_slice(&sectors.to_le_bytes());
            }
            table[510..].copy_from_slice(&[0x55, 0xaa]);
            std::os::unix::fs::FileExt::write_all_at(file, &table, 0).unwrap();
        })
    }

    fn with(megabytes: u64, fill: impl FnOnce(&File)) -> Result<Loop, String> {
        let dir = TempDir::new();
        let path = dir.join("image");
        let file = File::create(&path).unwrap();
        // Written, not sparse: what a hole does is the file system's affair.
        io::copy(&mut io::Read::take(io::repeat(0), megabytes << 20), &mut &file).unwrap();
        fill(&file);
        file.sync_all().unwrap();
        module("loop", "").ok(); // built in, or found out below
        // Before 6.6 tmpfs takes no direct I/O; the requests are the same.
        let direct = run("losetup", &format!("--find --show --partscan --direct-io=on {path}"));
        let device = direct.or_else(|_| run("losetup", &format!("--find --show --partscan {path}")))?.into();
        let made = Loop { dir, device };
        made.settle();
        Ok(made)
    }

    /// What looks at new devices (udev) has looked: they are open to nobody, and at rest.
    fn settle(&self) {
        let _ = Command::new("udevadm").args(["settle", "-t", "5"]).status();
        let stat = format!("/sys/block/{}/stat", self.name());
        let mut before = String::new();
        wait_until("the new disk is at rest", || {
            let now = fs::read_to_string(&stat).unwrap();
            let same = now == before;
            before = now;
            if !same {
                std::thread::sleep(Duration::from_millis(50));
            }
            same.then_some(())
        });
    }

    /// As in /sys/block.
    #[must_use]
    pub fn name(&self) -> &str {
        self.device.file_name().unwrap().to_str().unwrap()
    }

    #[must_use]
    pub fn path(&self) -> &str {
        self.device.to_str().unwrap()
    }

    #[must_use]
    pub fn partition(&self, number: u32) -> PathBuf {
        format!("{}p{number}", self.path()).into()
    }

    /// The file that it stands on.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.dir.join("image").into()
    }

    /// # Errors
    /// As [`schedule`].
    pub fn schedule(&self, scheduler: &str) -> Result<(), String> {
        schedule(self.name(), scheduler)
    }

    /// As long as that is open, udev looks at nothing here, not even after a write.
    ///
    /// # Errors
    /// Another has it.
    pub fn lock(&self) -> Result<File, String> {
        let file = File::open(&self.device).map_err(|e| format!("{}: {e}", self.path()))?;
        // SAFETY: a descriptor of our own.
        match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
            0 => Ok(file),
            _ => Err(format!("{}: flock: {}", self.path(), io::Error::last_os_error())),
        }
    }

    /// Takes it away while whoever likes looks.
    pub fn unplug(&self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).stderr(Stdio::null()).status();
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // The next that gets this number is to find it as usual.
        let _ = set(self.name(), "iostats", "1");
        let _ = set(self.name(), "nomerges", "0");
        self.unplug();
    }
}

/// Loads a module with these parameters.
///
/// # Errors
/// This kernel has no such module, or it does not take them; why.
pub fn module(name: &str, parameters: &str) -> Result<(), String> {
    run("modprobe", &format!("{name} {parameters}")).map(|_| ())
}

/// Runs a program that sets up devices; what it says.
///
/// # Errors
/// It is not there, or fails; why.
pub fn run(program: &str, args: &str) -> Result<String, String> {
    let output = Command::new(program).args(args.split_whitespace()).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("{program} {args}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A setting of /sys/block/DISK/queue.
///
/// # Errors
/// The kernel does not take it.
pub fn set(disk: &str, name: &str, value: &str) -> Result<(), String> {
    let file = format!("/sys/block/{disk}/queue/{name}");
    fs::write(&file, value).map_err(|e| format!("{file}: {e}"))
}

/// Changes a disk's scheduler, and says which one it has.
///
/// # Errors
/// This kernel has no such scheduler, or no choice.
pub fn schedule(disk: &str, scheduler: &str) -> Result<(), String> {
    set(disk, "scheduler", scheduler)?;
    let file = format!("/sys/block/{disk}/queue/scheduler");
    let shown = fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?;
    eprintln!("{disk}: scheduler {}", shown.trim());
    // Where there is no choice there are no brackets: "none".
    let is_set = shown.contains(&format!("[{scheduler}]")) || shown.trim() == scheduler;
    if is_set { Ok(()) } else { Err(format!("{disk} takes no scheduler {scheduler}: {}", shown.trim())) }
}

/// Direct I/O, request by request.
pub struct Direct {
    file: File,
    buffer: Vec<u8>,
    start: usize,
}

impl Direct {
    #[must_use]
    #[track_caller]
    pub fn open(device: impl AsRef<Path>, most: usize) -> Direct {
        let path = device.as_ref();
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_DIRECT);
        let file = options.open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let buffer = vec![0_u8; most + BLOCK];
        let start = buffer.as_ptr().align_offset(BLOCK);
        Direct { file, buffer, start }
    }

    /// # Errors
    /// The device fails.
    pub fn read(&mut self, offset: u64, len: usize) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.file, &mut self.buffer[self.start..][..len], offset)
    }

    /// # Errors
    /// The device fails.
    pub fn write(&mut self, offset: u64, len: usize) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(&self.file, &self.buffer[self.start..][..len], offset)
    }

    /// COUNT reads of a block each, and how long each took.
    #[track_caller]
    pub fn reads(&mut self, count: u64) -> Vec<Duration> {
        let timed = |i: u64| {
            let start = Instant::now();
            assert_eq!(self.read(i % 200 * BLOCK as u64, BLOCK).unwrap(), BLOCK);
            start.elapsed()
        };
        (0..count).map(timed).collect()
    }

    /// COUNT writes of a block each.
    #[track_caller]
    pub fn writes(&mut self, count: u64) {
        for i in 0..count {
            assert_eq!(self.write(i % 200 * BLOCK as u64, BLOCK).unwrap(), BLOCK);
        }
    }

    /// The device's cache is written out: a flush, if it has one.
    pub fn flush(&self) {
        // SAFETY: a descriptor of our own.
        assert_eq!(unsafe { libc::fdatasync(self.file.as_raw_fd()) }, 0);
    }
}

/// The I/O that a tool has counted is all that was done, but for what it says it lost: a completion that this
/// machine does not trace now and then (docs/biolatency.md, "Caveats"), for any tracer. In an emulated machine
/// nothing is missing but what its kernel skipped, and says so: an end that was skipped is unmatched as well.
#[track_caller]
pub fn assert_all(counted: u64, ended: &Ended, done: u64) {
    let end = ended.end();
    let missed = end.all_lost() + end.0.get("in_flight")["at_end"].as_u64().unwrap();
    assert!(counted <= done, "{counted} counted of {done}\n{}", ended.story());
    assert!(counted + missed >= done, "{counted} counted and {missed} missed of {done}\n{}", ended.story());
    let skipped = end.lost("skipped");
    let allowed = skipped + if env::is_tcg() { 0 } else { 3 + done / 20 };
    assert!(done - counted <= allowed, "{counted} counted of {done}\n{}", ended.story());
    assert!(counted + missed <= done + allowed + skipped, "{missed} missed of {done}\n{}", ended.story());
}
