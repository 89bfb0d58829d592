//! Copies of the files an API is made of, complete or absent: what last-known-good keeps and what bundles are held as.
//!
//! A directory with a `manifest`, which has the checksum of each file, and the files under `files/` at their absolute paths, so that
//! relative references among them resolve. Secrets are not copied: configuration holds references to them only.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use tollgate_proto::wire::bundle_file::Kind;
use tollgate_proto::wire::{Bundle, BundleFile};

use super::fingerprint::{Fingerprint, hash, read_limited};

/// First line of a manifest.
const FORMAT: &str = "tollgate known-good 1";

/// What one generation of one API may take on disk.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Which bundle of an API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) generation: u64,
    /// SHA-256 of its content.
    pub(super) hash: Vec<u8>,
}

/// A verified set of copies.
#[derive(Debug)]
pub(super) struct Kept {
    /// Copy of the API file, where there is one.
    pub(super) api_file: Option<PathBuf>,
    /// Where the API file lay, where there is one.
    pub(super) original: Option<PathBuf>,
    /// Copy of the OpenAPI file, or of the first of the descriptors; none where a service is asked for them.
    pub(super) spec: Option<PathBuf>,
    /// Which bundle it is, where it is one.
    pub(super) stamp: Option<Stamp>,
    pub(super) directory: PathBuf,
}

impl Kept {
    /// The copies in a directory, checked against their manifest.
    ///
    /// # Errors
    /// They are absent or damaged, in words.
    pub(super) fn verified(directory: PathBuf) -> Result<Self, String> {
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
        let mut kept = Self {
            api_file: None,
            original: None,
            spec: None,
            stamp: None,
            directory,
        };
        for line in lines {
            if let Some(stamp) = line.strip_prefix("bundle ") {
                kept.stamp = Some(Stamp::parse(stamp).ok_or("the manifest is damaged")?);
                continue;
            }
            let (kind, original, copy) = verify(&kept.directory, line)?;
            match kind {
                "api" => {
                    kept.api_file = Some(copy);
                    kept.original = Some(original.into());
                }
                "spec" => kept.spec = kept.spec.or(Some(copy)),
                _ => {}
            }
        }
        Ok(kept)
    }

    /// Where the copy of a file lies.
    pub(super) fn copy_of(&self, original: &Path) -> PathBuf {
        let absolute = std::path::absolute(original);
        place(&self.directory, absolute.as_deref().unwrap_or(original))
    }
}

impl Stamp {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (generation, hash) = text.split_once(' ')?;
        let byte = |at| u8::from_str_radix(hash.get(at..at + 2)?, 16).ok();
        Some(Self {
            generation: generation.parse().ok()?,
            hash: (0..hash.len())
                .step_by(2)
                .map(byte)
                .collect::<Option<_>>()?,
        })
    }

    pub(super) fn line(&self) -> String {
        let hash: String = self.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("bundle {} {hash}\n", self.generation)
    }
}

/// Everything a generation consists of, before it is written.
pub(super) struct Copies {
    manifest: String,
    files: Vec<(&'static str, PathBuf, Vec<u8>)>,
}

impl Copies {
    /// Copies of files as they were loaded.
    ///
    /// # Errors
    /// They changed since, are too large, or cannot be read.
    pub(super) fn read(
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
        Ok(copies)
    }

    /// The files of a bundle.
    ///
    /// # Errors
    /// A path cannot stand in a manifest.
    pub(super) fn of_bundle(bundle: &Bundle) -> io::Result<Self> {
        let stamp = Stamp {
            generation: bundle.generation,
            hash: bundle.hash.clone(),
        };
        let mut copies = Self {
            manifest: format!("{FORMAT}\n{}", stamp.line()),
            files: Vec::new(),
        };
        for file in &bundle.files {
            let kind = match file.kind() {
                Kind::Api => "api",
                Kind::Spec => "spec",
                Kind::Other | Kind::Unspecified => "file",
            };
            copies.add(kind, PathBuf::from(&file.path), file.content.clone())?;
        }
        Ok(copies)
    }

    /// As the files of a bundle: the API file first, no path twice and none with `..`.
    pub(super) fn into_files(mut self) -> Vec<BundleFile> {
        let rank = |kind: &str| {
            ["api", "spec"]
                .iter()
                .position(|it| *it == kind)
                .unwrap_or(2)
        };
        self.files.sort_by_key(|(kind, _, _)| rank(kind));
        let mut taken = HashSet::new();
        let mut files = Vec::new();
        for (kind, original, content) in self.files {
            let path = place(Path::new("/"), &original);
            let path = Path::new("/").join(path.strip_prefix("/files").unwrap_or(&path));
            let kind = match kind {
                "api" => Kind::Api,
                "spec" => Kind::Spec,
                _ => Kind::Other,
            };
            if taken.insert(path.clone()) {
                files.push(BundleFile {
                    kind: kind.into(),
                    path: path.display().to_string(),
                    content,
                });
            }
        }
        files
    }

    /// What the manifest says.
    pub(super) fn manifest(&self) -> String {
        format!(
            "{}sum {}\n",
            self.manifest,
            checksum(self.manifest.as_bytes())
        )
    }

    /// One more; nothing where the same place is taken already.
    pub(super) fn add(
        &mut self,
        kind: &'static str,
        original: PathBuf,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        if self.files.iter().any(|(_, path, _)| *path == original) {
            return Ok(());
        }
        let name = original.to_str().filter(|name| !name.contains('\n'));
        let name = name.ok_or_else(|| io::Error::other("a file name is not printable"))?;
        let _ = writeln!(self.manifest, "{kind} {} {name}", checksum(&bytes));
        self.files.push((kind, original, bytes));
        Ok(())
    }

    /// Writes them to a directory that is not there yet, durably.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn write(&self, generation: &Path) -> io::Result<()> {
        create_directory(generation)?;
        for (_, original, bytes) in &self.files {
            let copy = place(generation, original);
            if let Some(parent) = copy.parent() {
                create_directory(parent)?;
            }
            write_durably(&copy, bytes)?;
        }
        write_durably(&generation.join("manifest"), self.manifest().as_bytes())?;
        File::open(generation)?.sync_all()
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

/// Checks one manifest line, `kind checksum path`, and returns the kind, the original's path and the copy.
fn verify<'l>(generation: &Path, line: &'l str) -> Result<(&'l str, &'l str, PathBuf), String> {
    let mut parts = line.splitn(3, ' ');
    let (Some(kind), Some(sum), Some(original)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("the manifest is damaged".to_owned());
    };
    let copy = place(generation, Path::new(original));
    let bytes = read_limited(&copy, MAX_BYTES)
        .map_err(|error| format!("cannot read the copy of {original}: {error}"))?;
    if checksum(&bytes) == sum {
        Ok((kind, original, copy))
    } else {
        Err(format!("the copy of {original} is damaged"))
    }
}

fn checksum(bytes: &[u8]) -> String {
    format!("{:016x}-{}", hash(bytes), bytes.len())
}

pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

pub(super) fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
