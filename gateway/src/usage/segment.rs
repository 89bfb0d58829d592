//! A segment file of this run: how it is made, and what is known of it while it lives.
//!
//! It is allocated in full before it is used: writing to it never needs space, so a full disk is met here, ahead of need, and never on
//! the path of a request.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::frame::{Place, WORD};
use super::map::{Map, Pen, map};

/// End of a segment's file name.
pub(super) const SUFFIX: &str = ".usage";

/// What is added to the name of one that is kept aside.
pub(super) const DAMAGED: &str = ".damaged";

/// A segment, shared by its writer, the keeper and the shipper.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) place: Place,
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    /// Until everything written is on disk.
    map: Mutex<Option<Arc<Map>>>,
    /// Bytes that hold complete frames.
    committed: AtomicUsize,
    /// Bytes of them that are on disk.
    flushed: AtomicUsize,
    /// Nothing will be added.
    sealed: AtomicBool,
    /// The disk refused to take it: what is on disk is not known any more.
    broken: AtomicBool,
    /// Once sealed: the number after its last record.
    end: AtomicU64,
}

/// A segment nobody has written to, with the right to.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) segment: Arc<Segment>,
    pub(super) pen: Pen,
}

/// What is left to do for a segment's durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Everything so far is on disk.
    Open,
    /// Everything is on disk, and nothing will be added.
    Done,
    /// The disk refused.
    Broken,
}

/// The file name of a segment.
pub(super) fn file_name(shard: u32, index: u64) -> String {
    format!("{shard:05}-{index:010}{SUFFIX}")
}

/// Shard and index out of a file name.
pub(super) fn parse_name(name: &str) -> Option<(u32, u64)> {
    let (shard, index) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let read = (shard.parse().ok()?, index.parse().ok()?);
    (file_name(read.0, read.1) == name).then_some(read)
}

/// Makes and allocates a segment, and makes sure that it is found after a power cut.
pub(super) fn prepare(directory: &Path, place: Place, length: u64) -> io::Result<Spare> {
    let path = directory.join(file_name(place.shard, place.index));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    match allocated(file, directory, length) {
        Ok((file, pen, map)) => Ok(Spare {
            segment: Arc::new(Segment {
                place,
                path,
                file: Arc::new(file),
                map: Mutex::new(Some(map)),
                committed: AtomicUsize::new(0),
                flushed: AtomicUsize::new(0),
                sealed: AtomicBool::new(false),
                broken: AtomicBool::new(false),
                end: AtomicU64::new(0),
            }),
            pen,
        }),
        Err(error) => {
            let _ = fs::remove_file(&path);
            Err(error)
        }
    }
}

fn allocated(mut file: File, directory: &Path, length: u64) -> io::Result<(File, Pen, Arc<Map>)> {
    match fallocate(&file, FallocateFlags::empty(), 0, length) {
        Ok(()) => {}
        // Some file systems cannot reserve; writing zeros takes the space all the same.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            io::copy(&mut io::Read::take(io::repeat(0), length), &mut file)?;
            file.flush()?;
        }
        Err(error) => return Err(error.into()),
    }
    file.sync_all()?;
    File::open(directory)?.sync_all()?;
    let (pen, map) = map(&file, usize::try_from(length).map_err(io::Error::other)?)?;
    Ok((file, pen, map))
}

impl Segment {
    /// Bytes that hold complete frames.
    pub(super) fn committed(&self) -> usize {
        self.committed.load(Ordering::Acquire)
    }

    /// The writer has added complete frames up to here.
    #[inline]
    pub(super) fn commit(&self, end: usize) {
        self.committed.store(end, Ordering::Release);
    }

    /// The writer adds nothing more; `end` is the number of the next record, which goes elsewhere.
    pub(super) fn seal(&self, end: u64) {
        self.end.store(end, Ordering::Relaxed);
        self.sealed.store(true, Ordering::Release);
    }

    /// Nothing will be added. Asked before [`Self::committed`], that is final.
    pub(super) fn sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// The number after its last record, once it is sealed.
    pub(super) fn end(&self) -> Option<u64> {
        self.sealed().then(|| self.end.load(Ordering::Relaxed))
    }

    /// The disk refused to take it.
    #[inline]
    pub(super) fn broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Has what was added since the last time written to disk, and waits. A segment the disk refused once is not tried again: the
    /// kernel may have dropped what it could not write, and would then report success for nothing.
    pub(super) fn flush(&self) -> io::Result<Flushed> {
        if self.broken() {
            return Ok(Flushed::Broken);
        }
        let sealed = self.sealed();
        let (from, to) = (self.flushed.load(Ordering::Relaxed), self.committed());
        let map = self.map.lock().clone();
        if let Some(map) = map
            && from < to
        {
            if let Err(error) = map.flush(from.saturating_sub(WORD), to) {
                self.broken.store(true, Ordering::Relaxed);
                return Err(error);
            }
            self.flushed.store(to, Ordering::Relaxed);
        }
        if !sealed {
            return Ok(Flushed::Open);
        }
        // Read through the file from here on; the address space is given back.
        *self.map.lock() = None;
        Ok(Flushed::Done)
    }

    /// The file is not needed any more.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "usage: cannot remove a segment");
        }
    }
}

/// Keeps a damaged segment aside, under another name, for whoever wants to know.
pub(super) fn set_aside(path: &Path) {
    let mut name = path.as_os_str().to_owned();
    name.push(DAMAGED);
    match fs::rename(path, &name) {
        Ok(()) => tracing::error!(
            path = %Path::new(&name).display(),
            "usage: a segment is damaged; what could be read of it was sent, the file is kept aside"
        ),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "usage: cannot set a damaged segment aside");
        }
    }
}
