//! The files of the control plane's directory: `plans.yaml`, `consumers.yaml`, `terms.yaml` and the texts of terms. They are looked at
//! and read here, and the last that could be read are kept in the state directory for a start with broken ones.
//!
//! Whenever the process ends, a whole copy is left, the new or the one before. Secrets are references: none is copied. Not here: what
//! the files mean (`tollgate_policy::settings`).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tollgate_control::FileReader;
use tollgate_policy::settings::{DirectoryConfig, read_directory};
use tollgate_policy::{Finding, Severity};

/// Written last into a copy: without it, the copy is not whole.
const WHOLE: &str = "good";

/// How the files look from outside.
pub(super) type Fingerprint = Vec<(PathBuf, Option<(SystemTime, u64)>)>;

/// Differs when a file changed, came or went.
pub(super) fn fingerprint(directory: &Path) -> Fingerprint {
    let named = ["plans.yaml", "consumers.yaml", "terms.yaml"].map(|name| directory.join(name));
    let texts = fs::read_dir(directory.join("terms")).into_iter().flatten();
    let texts = texts.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = named.into_iter().chain(texts).collect();
    files.sort();
    let stat = |path: PathBuf| {
        let metadata = fs::metadata(&path).ok();
        let seen = metadata.and_then(|it| Some((it.modified().ok()?, it.len())));
        (path, seen)
    };
    files.into_iter().map(stat).collect()
}

/// Reads the files of `directory`. While the process runs, files that are broken leave what is there; the last good ones are for its
/// start alone.
pub(super) fn reader(directory: &Path, state_dir: &Path) -> FileReader {
    let (directory, kept) = (directory.to_owned(), state_dir.join("directory"));
    let started = AtomicBool::new(false);
    Box::new(move || {
        let kept_counts = !started.swap(true, Ordering::Relaxed);
        read(&directory, &kept, kept_counts)
    })
}

fn read(directory: &Path, kept: &Path, kept_counts: bool) -> Result<DirectoryConfig, Vec<Finding>> {
    let findings = match read_directory(directory, &super::environment) {
        Ok((config, files)) => {
            if let Err(error) = keep(directory, kept, &files) {
                tracing::warn!("plans and consumers are not kept for the next start: {error}");
            }
            return Ok(config);
        }
        Err(findings) if !kept_counts => return Err(findings),
        Err(findings) => findings,
    };
    let Some(copy) = [fresh(kept), kept.to_owned()]
        .into_iter()
        .find(|copy| copy.join(WHOLE).exists())
    else {
        return Err(findings);
    };
    let (last, _) = read_directory(&copy, &super::environment).map_err(|_| findings.clone())?;
    for finding in findings.iter().filter(|it| it.severity == Severity::Error) {
        tracing::error!("{finding}");
    }
    tracing::error!("plans, consumers and terms are the last that could be read");
    Ok(last)
}

/// Where a copy is made. Once it is whole it counts, wherever it lies: it is moved for the next one to have room.
fn fresh(kept: &Path) -> PathBuf {
    kept.with_extension("new")
}

/// Copies the files, so that a restart with broken ones still knows its callers.
fn keep(directory: &Path, kept: &Path, files: &[PathBuf]) -> io::Result<()> {
    let fresh = fresh(kept);
    // A process that ended in the middle may have left the only whole copy there.
    settle(&fresh, kept)?;
    for file in files.iter().filter(|file| file.exists()) {
        let Ok(relative) = file.strip_prefix(directory) else {
            continue;
        };
        let copy = fresh.join(relative);
        if let Some(folder) = copy.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(file, &copy)?;
        File::open(&copy)?.sync_all()?;
    }
    fs::create_dir_all(&fresh)?;
    // What says that the copy is whole must not reach the disk before the copy.
    File::open(&fresh)?.sync_all()?;
    File::create(fresh.join(WHOLE))?.sync_all()?;
    settle(&fresh, kept)
}

/// Puts a fresh copy in its place where it is whole, and removes what there is of it otherwise.
fn settle(fresh: &Path, kept: &Path) -> io::Result<()> {
    if fresh.join(WHOLE).exists() {
        remove(kept)?;
        return fs::rename(fresh, kept);
    }
    remove(fresh)
}

fn remove(folder: &Path) -> io::Result<()> {
    // First of all it says no more that it is whole: it will not be for much longer.
    for done in [
        fs::remove_file(folder.join(WHOLE)),
        fs::remove_dir_all(folder),
    ] {
        match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]
mod tests {
    use super::*;

    fn only(consumer: &str) -> String {
        let consumers = format!("consumers: {{ {consumer}: {{}} }}");
        format!("organisations: {{ o: {{ projects: {{ p: {{ {consumers} }} }} }} }}\n")
    }

    struct World {
        _home: tempfile::TempDir,
        directory: PathBuf,
        kept: PathBuf,
    }

    impl World {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let directory = home.path().join("config");
            fs::create_dir(&directory).unwrap();
            let kept = home.path().join("directory");
            Self {
                _home: home,
                directory,
                kept,
            }
        }

        fn write(&self, text: &str) {
            fs::write(self.directory.join("consumers.yaml"), text).unwrap();
        }

        /// The consumers a start finds.
        fn starts(&self) -> Option<Vec<String>> {
            let config = read(&self.directory, &self.kept, true).ok()?;
            let names = config.consumers.iter();
            Some(names.map(|consumer| consumer.name.to_string()).collect())
        }
    }

    #[test]
    fn wherever_the_process_ended_a_start_with_broken_files_finds_a_whole_copy() {
        let world = World::new();
        world.write(&only("web"));
        assert_eq!(world.starts().unwrap(), ["web"]);
        let broken = "consumers: [";
        world.write(broken);
        let web = Some(vec!["web".to_owned()]);
        assert_eq!(world.starts(), web);
        let fresh = fresh(&world.kept);
        // In the middle of copying: what is there of the fresh one does not count.
        fs::create_dir(&fresh).unwrap();
        fs::write(fresh.join("consumers.yaml"), only("half")).unwrap();
        assert_eq!(world.starts(), web);
        // The fresh one is whole, and the one before partly or wholly removed.
        fs::write(fresh.join("consumers.yaml"), only("desk")).unwrap();
        fs::write(fresh.join(WHOLE), "").unwrap();
        fs::remove_file(world.kept.join(WHOLE)).unwrap();
        let desk = Some(vec!["desk".to_owned()]);
        assert_eq!(world.starts(), desk);
        fs::remove_dir_all(&world.kept).unwrap();
        assert_eq!(world.starts(), desk);
        // The next copy replaces both.
        world.write(&only("web"));
        assert_eq!(world.starts(), web);
        world.write(broken);
        assert_eq!(world.starts(), web);
        assert!(!fresh.exists());
    }

    #[test]
    fn an_only_copy_survives_the_making_of_the_next() {
        let world = World::new();
        world.write(&only("web"));
        let fresh = fresh(&world.kept);
        fs::create_dir(&fresh).unwrap();
        fs::write(fresh.join("consumers.yaml"), only("desk")).unwrap();
        fs::write(fresh.join(WHOLE), "").unwrap();
        // The disk refuses the copy: a file stands where a folder has to be.
        let file = world.directory.join("missing").join("x");
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(keep(&world.directory, &world.kept, &[file]).is_err());
        world.write("consumers: [");
        assert_eq!(world.starts().unwrap(), ["desk"]);
    }
}
