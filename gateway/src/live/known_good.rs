//! Last-known-good on disk: copies of the files an API was last served from, so that a restart with a broken file still
//! serves. Two generations, each complete or absent.
//!
//! `<state_dir>/known-good/<api>/{1,2}/` with `1` the newer; what is in them, see `copies`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::copies::{Copies, Kept, remove_directory};
use super::fingerprint::Fingerprint;

/// Newest first.
pub(super) const GENERATIONS: [&str; 2] = ["1", "2"];

/// The store.
#[derive(Debug)]
pub(super) struct KnownGood {
    root: PathBuf,
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
        if kept.is_ok_and(|kept| kept == copies.manifest()) && self.read(api, "1").is_ok() {
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
        let kept = Kept::verified(self.root.join(api).join(generation))?;
        match kept.spec {
            Some(_) => Ok(kept),
            None => Err("the manifest names no OpenAPI file or descriptors".to_owned()),
        }
    }

    /// Forgets an API that was removed.
    pub(super) fn forget(&self, api: &str) -> io::Result<()> {
        remove_directory(&self.root.join(api))
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
            assert!(
                kept.spec
                    .as_ref()
                    .unwrap()
                    .parent()
                    .unwrap()
                    .join("../apis/a.yaml")
                    .exists()
            );
            assert!(
                kept.spec
                    .as_ref()
                    .unwrap()
                    .parent()
                    .unwrap()
                    .join("shared/b.yaml")
                    .exists()
            );
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
        fs::write(kept.spec.unwrap(), "onE").unwrap();
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
