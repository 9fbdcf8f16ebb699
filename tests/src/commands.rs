//! What disks are told beside reads and writes: zones are managed, and commands are passed through to the device.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::ptr::null_mut;

/// A disk, or a controller, that commands are sent to.
pub struct Commands(File);

/// <linux/blkzoned.h>
#[derive(Clone, Copy, Debug)]
pub enum Zone {
    Reset = 131,
    Open = 134,
    Close = 135,
    Finish = 136,
}

/// `_IOW` (1) and `_IOWR` (3) of <asm-generic/ioctl.h>.
const fn number(direction: u64, kind: u8, nr: u64, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | (kind as u64) << 8 | nr
}

/// `struct blk_zone_range`
#[repr(C)]
struct ZoneRange {
    sector: u64,
    sectors: u64,
}

/// `struct sg_io_hdr`
#[repr(C)]
struct SgIo {
    interface: i32,
    direction: i32,
    command_len: u8,
    sense_most: u8,
    vectors: u16,
    data_len: u32,
    data: *mut u8,
    command: *mut u8,
    sense: *mut u8,
    timeout_ms: u32,
    flags: u32,
    pack: i32,
    user: *mut u8,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_len: u8,
    host_status: u16,
    driver_status: u16,
    residual: i32,
    duration_ms: u32,
    info: u32,
}

/// `struct nvme_passthru_cmd`
#[repr(C)]
#[derive(Default)]
struct Nvme {
    opcode: u8,
    flags: u8,
    unused: u16,
    namespace: u32,
    cdw2: [u32; 2],
    metadata: u64,
    address: u64,
    metadata_len: u32,
    data_len: u32,
    cdw10: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

impl Commands {
    /// # Errors
    /// It is not there; why.
    pub fn open(device: impl AsRef<Path>) -> Result<Commands, String> {
        let path = device.as_ref();
        let file = OpenOptions::new().read(true).write(true).open(path);
        file.map(Commands).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn send<T>(&self, request: u64, argument: &mut T) -> io::Result<()> {
        // SAFETY: each request is sent with the struct that its number is made of or, of SG_IO, stands for; what the
        // struct points to outlives the call.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, std::ptr::from_mut(argument)) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// For these sectors, which are whole zones.
    ///
    /// # Errors
    /// The disk has no zones, or the operation fails.
    pub fn zone(&self, what: Zone, sector: u64, sectors: u64) -> io::Result<()> {
        let mut range = ZoneRange { sector, sectors };
        self.send(number(1, 0x12, what as u64, size_of::<ZoneRange>()), &mut range)
    }

    fn scsi(&self, command: &mut [u8], direction: i32, data: &mut [u8]) -> io::Result<()> {
        const SG_IO: u64 = 0x2285;
        let mut sense = [0_u8; 32];
        let mut io = SgIo {
            interface: i32::from(b'S'),
            direction,
            command_len: command.len() as u8,
            sense_most: sense.len() as u8,
            vectors: 0,
            data_len: data.len() as u32,
            data: if data.is_empty() { null_mut() } else { data.as_mut_ptr() },
            command: command.as_mut_ptr(),
            sense: sense.as_mut_ptr(),
            timeout_ms: 10_000,
            flags: 0,
            pack: 0,
            user: null_mut(),
            status: 0,
            masked_status: 0,
            message_status: 0,
            sense_len: 0,
            host_status: 0,
            driver_status: 0,
            residual: 0,
            duration_ms: 0,
            info: 0,
        };
        self.send(SG_IO, &mut io)
    }

    /// Without data: to the block layer, something that is read.
    ///
    /// # Errors
    /// It is no SCSI disk.
    pub fn test_unit_ready(&self) -> io::Result<()> {
        self.scsi(&mut [0; 6], -1, &mut [])
    }

    /// A sector of 512 bytes, by a WRITE(10) of our own.
    ///
    /// # Errors
    /// It is no SCSI disk.
    pub fn scsi_write(&self, sector: u8) -> io::Result<()> {
        self.scsi(&mut [0x2a, 0, 0, 0, 0, sector, 0, 0, 1, 0], -2, &mut [0; 512])
    }

    /// NVMe, admin queue: what the controller says of itself.
    ///
    /// # Errors
    /// It is no NVMe controller.
    pub fn identify(&self) -> io::Result<()> {
        let mut data = vec![0_u8; 4096];
        let address = data.as_mut_ptr() as u64;
        let mut command = Nvme { opcode: 6, address, data_len: 4096, ..Nvme::default() };
        command.cdw10[0] = 1;
        self.send(number(3, b'N', 0x41, size_of::<Nvme>()), &mut command)
    }

    /// NVMe, a sector of 512 bytes of the first namespace.
    ///
    /// # Errors
    /// It is no NVMe disk.
    pub fn nvme_read(&self, sector: u32) -> io::Result<()> {
        let mut data = vec![0_u8; 512];
        let address = data.as_mut_ptr() as u64;
        let mut command = Nvme { opcode: 2, namespace: 1, address, data_len: 512, ..Nvme::default() };
        command.cdw10[0] = sector;
        self.send(number(3, b'N', 0x43, size_of::<Nvme>()), &mut command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structs_have_the_kernels_sizes() {
        assert_eq!((size_of::<ZoneRange>(), size_of::<SgIo>(), size_of::<Nvme>()), (16, 88, 72));
        // BLKRESETZONE, NVME_IOCTL_ADMIN_CMD
        assert_eq!(number(1, 0x12, 131, 16), 0x4010_1283);
        assert_eq!(number(3, b'N', 0x41, 72), 0xc048_4e41);
    }
}
