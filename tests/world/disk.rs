//! A small disk, to be filled or made read-only.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A disk of 1 MiB, in memory, unmounted with its guard.
pub struct Disk(tempfile::TempDir);

impl Disk {
    /// `None`, said aloud, where this user may not mount.
    pub fn new() -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(place.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(place));
        }
        eprintln!("skipped: only root may mount a small disk");
        None
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes it larger.
    pub fn grow(&self) {
        let grown = Command::new("mount")
            .args(["-o", "remount,size=64m"])
            .arg(self.path())
            .status();
        assert!(grown.unwrap().success(), "the disk cannot be made larger");
    }

    /// Takes all room there is.
    pub fn fill(&self) {
        let mut filler = std::fs::File::create(self.path().join("filler")).unwrap();
        let piece = vec![0; 1 << 16];
        while filler.write_all(&piece).is_ok() {}
        // The last bytes, too.
        while filler.write_all(&[0]).is_ok() {}
    }

    /// Gives the room back.
    pub fn clear(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }

    pub fn make_read_only(&self) {
        let remounted = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(self.path())
            .status();
        assert!(remounted.unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _best_effort = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// One file, or one directory with all in it, that cannot be written, whoever tries; with its guard it can again.
pub struct Sealed(std::path::PathBuf);

impl Sealed {
    /// `None`, said aloud, where this user may not mount.
    pub fn new(file: &Path) -> Option<Self> {
        let mount = |arguments: &[&str]| {
            let mut command = Command::new("mount");
            command.args(arguments).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let name = file.to_str().unwrap();
        if !mount(&["--bind", name, name]) {
            eprintln!("skipped: only root may make a file read-only for everybody");
            return None;
        }
        let sealed = Self(file.to_owned());
        assert!(mount(&["-o", "remount,bind,ro", name]));
        Some(sealed)
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        let _best_effort = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
