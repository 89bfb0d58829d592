//! A wall clock that is set wrong, by libfaketime (Debian's package `faketime`).

use std::path::{Path, PathBuf};

/// The wall clock of a process. Time goes on as it does; only what the clock shows is set.
pub struct Clock {
    library: PathBuf,
    directory: tempfile::TempDir,
}

impl Clock {
    /// `None`, said aloud, where there is no libfaketime; in CI that is a failure.
    pub fn new() -> Option<Self> {
        let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
        let library = places
            .map(|place| {
                Path::new("/usr/lib")
                    .join(place)
                    .join("faketime/libfaketimeMT.so.1")
            })
            .into_iter()
            .find(|library| library.exists());
        let Some(library) = library else {
            assert!(std::env::var_os("CI").is_none(), "faketime is missing");
            eprintln!("skipped: libfaketime is missing: apt-get install faketime");
            return None;
        };
        let clock = Self {
            library,
            directory: tempfile::tempdir().unwrap(),
        };
        clock.set("+0");
        Some(clock)
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("clock")
    }

    /// So much off the right time: `+1h`, `-1h`, `+400d`.
    pub fn set(&self, off: &str) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, off).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    /// What a process by this clock is started with.
    pub fn environment(&self) -> Vec<(String, String)> {
        let (library, file) = (self.library.to_str().unwrap(), self.file());
        let variables = [
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }
}
