//! Last-known-good on disk: copies of the files an API was last served from, so that a restart with a broken file still
//! serves. Two generations, each complete or absent.
//!
//! `<state_dir>/known-good/<api>/{1,2}/` with `1` the newer. A generation is a `manifest` with the checksum of each file, and
//! the files under `files/` at their absolute paths, so that relative references among them resolve. Secrets are not copied:
//! configuration holds references to them only.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use super::fingerprint::{Fingerprint, hash, read_limited};

/// First line of a manifest.
const FORMAT: &str = "tollgate known-good 1";

/// Newest first.
pub(super) const GENERATIONS: [&str; 2] = ["1", "2"];

/// What one generation of one API may take on disk.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The store.
#[derive(Debug)]
pub(super) struct KnownGood {
    root: PathBuf,
}

/// A verified generation.
#[derive(Debug)]
pub(super) struct Kept {
    /// Copy of the API file, where there is one.
    pub(super) api_file: Option<PathBuf>,
    /// Copy of the OpenAPI file, or of the first of the descriptors.
    pub(super) spec: PathBuf,
    directory: PathBuf,
}

impl Kept {
    /// Where the copy of a file lies.
    pub(super) fn copy_of(&self, original: &Path) -> PathBuf {
        let absolute = std::path::absolute(original);
        place(&self.directory, absolute.as_deref().unwrap_or(original))
    }
}

impl KnownGood {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            root: state_dir.join("known-good"),
        }
    }

    /// Keeps what was just loaded as the newest generation. Does nothing where that holds the same already.
    ///
    /// # Errors
    /// The files changed since `loaded`, are too large, or the disk refuses. What was kept before stays.
    pub(super) fn keep(
        &self,
        api: &str,
        api_file: Option<&Path>,
        spec_files: &[PathBuf],
        loaded: &Fingerprint,
    ) -> io::Result<()> {
        let copies = Copies::read(api_file, spec_files, loaded)?;
        let directory = self.root.join(api);
        let [newest, older] = GENERATIONS.map(|generation| directory.join(generation));
        let kept = fs::read_to_string(newest.join("manifest"));
        if kept.is_ok_and(|kept| kept == copies.manifest) && self.read(api, "1").is_ok() {
            return Ok(());
        }
        let fresh = directory.join("new");
        remove_directory(&fresh)?;
        copies.write(&fresh)?;
        // A crash between these leaves at least one complete generation.
        if newest.exists() {
            remove_directory(&older)?;
            fs::rename(&newest, &older)?;
        }
        fs::rename(&fresh, &newest)?;
        File::open(&directory)?.sync_all()
    }

    /// A generation, checked against its manifest.
    ///
    /// # Errors
    /// It is absent or damaged, in words.
    pub(super) fn read(&self, api: &str, generation: &str) -> Result<Kept, String> {
        let directory = self.root.join(api).join(generation);
        let manifest = read_limited(&directory.join("manifest"), MAX_BYTES)
            .map_err(|error| format!("no manifest: {error}"))?;
        let manifest = String::from_utf8(manifest).map_err(|_| "the manifest is damaged")?;
        let (entries, sum) = manifest
            .rsplit_once("sum ")
            .ok_or("the manifest is cut off")?;
        if sum.trim_end() != checksum(entries.as_bytes()) {
            return Err("the manifest is damaged".to_owned());
        }
        let mut lines = entries.lines();
        if lines.next() != Some(FORMAT) {
            return Err("the manifest has an unknown format".to_owned());
        }
        let (mut api_file, mut spec) = (None, None);
        for line in lines {
            let (kind, copy) = verify(&directory, line)?;
            match kind {
                "api" => api_file = Some(copy),
                "spec" => spec = Some(copy),
                _ => {}
            }
        }
        let spec = spec.ok_or("the manifest names no OpenAPI file or descriptors")?;
        Ok(Kept {
            api_file,
            spec,
            directory,
        })
    }

    /// Forgets an API that was removed.
    pub(super) fn forget(&self, api: &str) -> io::Result<()> {
        remove_directory(&self.root.join(api))
    }
}

/// Where in a generation the copy of `original` lies.
fn place(generation: &Path, original: &Path) -> PathBuf {
    let mut copy = generation.join("files");
    let floor = copy.components().count();
    for component in original.components() {
        match component {
            Component::Normal(name) => copy.push(name),
            Component::ParentDir if copy.components().count() > floor => {
                copy.pop();
            }
            _ => {}
        }
    }
    copy
}

/// Everything a generation consists of, before it is written.
struct Copies {
    manifest: String,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Copies {
    fn read(
        api_file: Option<&Path>,
        spec_files: &[PathBuf],
        loaded: &Fingerprint,
    ) -> io::Result<Self> {
        let mut copies = Self {
            manifest: format!("{FORMAT}\n"),
            files: Vec::new(),
        };
        let mut left = MAX_BYTES;
        let kinds = std::iter::once("spec").chain(std::iter::repeat("file"));
        let spec_files = kinds.zip(spec_files.iter().map(PathBuf::as_path));
        for (kind, file) in api_file
            .into_iter()
            .map(|file| ("api", file))
            .chain(spec_files)
        {
            let bytes = read_limited(file, left)?;
            left = left.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            if loaded.hash_of(file) != Some(hash(&bytes)) {
                let text = format!("{} changed while it was kept", file.display());
                return Err(io::Error::other(text));
            }
            let absolute = std::path::absolute(file)?;
            // References among files may have been followed through symbolic links: the copy is found both ways.
            let resolved = fs::canonicalize(file)?;
            if resolved != absolute {
                copies.add("file", resolved, bytes.clone())?;
            }
            copies.add(kind, absolute, bytes)?;
        }
        let sum = checksum(copies.manifest.as_bytes());
        let _ = writeln!(copies.manifest, "sum {sum}");
        Ok(copies)
    }

    fn add(&mut self, kind: &str, original: PathBuf, bytes: Vec<u8>) -> io::Result<()> {
        let name = original.to_str().filter(|name| !name.contains('\n'));
        let name = name.ok_or_else(|| io::Error::other("a file name is not printable"))?;
        let _ = writeln!(self.manifest, "{kind} {} {name}", checksum(&bytes));
        self.files.push((original, bytes));
        Ok(())
    }

    fn write(&self, generation: &Path) -> io::Result<()> {
        create_directory(generation)?;
        for (original, bytes) in &self.files {
            let copy = place(generation, original);
            if let Some(parent) = copy.parent() {
                create_directory(parent)?;
            }
            write_durably(&copy, bytes)?;
        }
        write_durably(&generation.join("manifest"), self.manifest.as_bytes())?;
        File::open(generation)?.sync_all()
    }
}

/// Checks one manifest line, `kind checksum path`, and returns the kind and the copy.
fn verify<'l>(generation: &Path, line: &'l str) -> Result<(&'l str, PathBuf), String> {
    let mut parts = line.splitn(3, ' ');
    let (Some(kind), Some(sum), Some(original)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("the manifest is damaged".to_owned());
    };
    let copy = place(generation, Path::new(original));
    let bytes = read_limited(&copy, MAX_BYTES)
        .map_err(|error| format!("cannot read the copy of {original}: {error}"))?;
    if checksum(&bytes) == sum {
        Ok((kind, copy))
    } else {
        Err(format!("the copy of {original} is damaged"))
    }
}

fn checksum(bytes: &[u8]) -> String {
    format!("{:016x}-{}", hash(bytes), bytes.len())
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
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

    struct World {
        directory: tempfile::TempDir,
        store: KnownGood,
        files: Vec<PathBuf>,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = KnownGood::new(&directory.path().join("state"));
            let files = ["apis/a.yaml", "specs/a.yaml", "specs/shared/b.yaml"];
            let files: Vec<_> = files
                .iter()
                .map(|file| directory.path().join(file))
                .collect();
            for file in &files {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
            }
            Self {
                directory,
                store,
                files,
            }
        }

        fn keep(&self, text: &str) -> io::Result<()> {
            for file in &self.files {
                fs::write(file, text).unwrap();
            }
            let loaded = Fingerprint::of(&self.files);
            self.store
                .keep("a", Some(&self.files[0]), &self.files[1..], &loaded)
        }

        fn kept(&self, generation: &str) -> Result<String, String> {
            let kept = self.store.read("a", generation)?;
            assert!(kept.spec.parent().unwrap().join("../apis/a.yaml").exists());
            assert!(kept.spec.parent().unwrap().join("shared/b.yaml").exists());
            Ok(fs::read_to_string(kept.api_file.unwrap()).unwrap())
        }
    }

    #[test]
    fn two_generations_are_kept_and_a_repeat_makes_none() {
        let world = World::new();
        for text in ["one", "two", "three", "three"] {
            world.keep(text).unwrap();
        }
        assert_eq!(world.kept("1").unwrap(), "three");
        assert_eq!(world.kept("2").unwrap(), "two");
        assert!(
            !world
                .directory
                .path()
                .join("state/known-good/a/new")
                .exists()
        );
        world.store.forget("a").unwrap();
        assert!(world.kept("1").is_err());
    }

    #[test]
    fn a_damaged_copy_or_manifest_is_told_apart() {
        let world = World::new();
        world.keep("one").unwrap();
        let kept = world.store.read("a", "1").unwrap();
        fs::write(&kept.spec, "onE").unwrap();
        assert!(world.kept("1").unwrap_err().contains("damaged"));
        // A repeat of the same content repairs it.
        world.keep("one").unwrap();
        assert_eq!(world.kept("1").unwrap(), "one");
        let manifest = world.directory.path().join("state/known-good/a/1/manifest");
        let text = fs::read_to_string(&manifest).unwrap();
        for end in 0..text.len() - 1 {
            fs::write(&manifest, &text[..end]).unwrap();
            assert!(world.kept("1").is_err(), "cut at {end}");
        }
    }

    #[test]
    fn files_that_changed_since_they_were_loaded_are_not_kept() {
        let world = World::new();
        world.keep("one").unwrap();
        let loaded = Fingerprint::of(&world.files);
        fs::write(&world.files[2], "other").unwrap();
        assert!(
            world
                .store
                .keep("a", None, &world.files[1..], &loaded)
                .is_err()
        );
        assert_eq!(world.kept("1").unwrap(), "one");
    }
}
