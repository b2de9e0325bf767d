//! A disk of its own for a part: small, and full when it is to be.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Whatever a part frees on a full disk is taken this often.
const TOP_UP: Duration = Duration::from_millis(50);

/// A file system in memory (tmpfs), gone with its owner.
pub(crate) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts it on a new directory, with so many MiB. None where this user may not mount anything.
    pub(crate) fn mount(path: PathBuf, mib: u32) -> Option<Disk> {
        fs::create_dir(&path).unwrap();
        let options = format!("size={mib}m,mode=0700");
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).ok()?;
        Some(Disk { path })
    }

    /// Takes all that is free but for so many bytes, until it is told to stop. Returns what does that.
    pub(crate) fn fill(&self, but: i64) -> Filler {
        let path = self.path.join("filler");
        let file = File::create(&path).unwrap();
        let filling = tokio::spawn(async move {
            let mut length = 0;
            loop {
                let free = statvfs(path.as_path()).map_or(0, |disk| disk.blocks_available() * disk.fragment_size());
                let free = i64::try_from(free).unwrap() - but;
                // Somebody may have been quicker.
                if free > 0 && fallocate(file.as_fd(), FallocateFlags::empty(), length, free).is_ok() {
                    length += free;
                }
                sleep(TOP_UP).await;
            }
        });
        Filler { path: self.path.join("filler"), filling }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever still has files there keeps them until it ends.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

/// Unmounts what a process that was killed has left in a directory.
pub(crate) fn unmount_all(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for mounted in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| Path::new(path).starts_with(directory)) {
        let _ = umount2(mounted, MntFlags::MNT_DETACH);
    }
}

/// What keeps a disk full, until it is dropped.
pub(crate) struct Filler {
    path: PathBuf,
    filling: JoinHandle<()>,
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.filling.abort();
        let _ = fs::remove_file(&self.path);
    }
}
