//! The directory a process keeps its state in: chosen once, created for its owner alone.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where packages and containers expect it.
const SYSTEM: &str = "/var/lib/tollgate";

/// Nobody else reads what may hold keys.
const OWNER_ONLY: u32 = 0o700;

/// Creates the state directory: the one asked for, else `/var/lib/tollgate` where that can be written, else
/// `~/.local/state/tollgate` (`home` is the user's home directory).
///
/// # Errors
/// None of them can be created and written, in words.
pub fn prepare(asked: Option<&Path>, home: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(asked) = asked {
        return match create(asked) {
            // Copies of files refer to each other by whole paths.
            Ok(()) => Ok(std::path::absolute(asked).unwrap_or_else(|_| asked.to_owned())),
            Err(error) => Err(format!(
                "cannot use state_dir {}: {error}; name a directory that can be written (--state-dir)",
                asked.display()
            )),
        };
    }
    choose(Path::new(SYSTEM), home)
}

fn choose(system: &Path, home: Option<&Path>) -> Result<PathBuf, String> {
    let Err(error) = create(system) else {
        return Ok(system.to_owned());
    };
    let refused = format!("cannot use {}: {error}", system.display());
    let Some(home) = home else {
        return Err(format!(
            "{refused}, and there is no home directory; set state_dir"
        ));
    };
    let own = home.join(".local/state/tollgate");
    match create(&own) {
        Ok(()) => Ok(own),
        Err(error) => Err(format!("{refused}; cannot use {}: {error}", own.display())),
    }
}

/// Creates the directory with its parents, closes it to others, and tries whether it can be written.
///
/// A full disk is no error: it fills up by accident, often by somebody else, and a gateway that could not start again then would
/// make a small trouble a large one. It serves, and only keeps no last-known-good.
fn create(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(OWNER_ONLY)
        .create(directory)?;
    if fs::metadata(directory)?.permissions().mode() & 0o777 != OWNER_ONLY {
        fs::set_permissions(directory, fs::Permissions::from_mode(OWNER_ONLY))?;
    }
    let probe = directory.join(format!(".probe-{}", std::process::id()));
    let written = fs::write(&probe, b"probe");
    let removed = fs::remove_file(&probe);
    match written {
        Ok(()) => removed,
        Err(error) if is_full(&error) => {
            tracing::warn!(
                "state_dir {}: {error}; serving all the same, without keeping a last-known-good configuration",
                directory.display()
            );
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_its_owners_alone_even_where_it_stood_open() {
        let parent = tempfile::tempdir().unwrap();
        let open = parent.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        for directory in [open, parent.path().join("new/deep")] {
            assert_eq!(prepare(Some(&directory), None).unwrap(), directory);
            let mode = fs::metadata(&directory).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
    }

    #[test]
    fn the_home_directory_serves_where_the_system_directory_cannot() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, b"").unwrap();
        let chosen = choose(&file.join("below"), Some(home.path())).unwrap();
        assert_eq!(chosen, home.path().join(".local/state/tollgate"));
        assert!(
            choose(&file.join("below"), None)
                .unwrap_err()
                .contains("set state_dir")
        );
    }
}
