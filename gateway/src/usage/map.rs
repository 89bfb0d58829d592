//! The memory of a segment: written by one pen, kept by the kernel when the process dies.
//!
//! The only file of the journal with `unsafe`. Two things have to hold, and do:
//!
//! 1. *No access beyond the file*, which would be SIGBUS. The file is allocated in full before it is mapped, its directory is private
//!    (0700) and locked by this process, and no code here or elsewhere shortens a segment: it is only ever unlinked, which leaves a
//!    mapping whole. Every access is checked against the length mapped. (A disk that cannot read a page back also raises SIGBUS; pages
//!    being written are in memory, so that takes a page that was evicted and then lost by the hardware.)
//! 2. *No data race.* Only [`Pen`] touches the mapped bytes, it cannot be cloned, writing takes `&mut`, and nothing in the process reads
//!    through the mapping: readers use `pread`. [`Map::flush`] passes addresses to the kernel and dereferences none.
//!
//! Not here: what the bytes mean (`frame.rs`), and when they are flushed (`keeper.rs`).
#![allow(
    unsafe_code,
    reason = "stores into a shared mapping; argued at the head"
)]

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

/// A mapped file.
#[derive(Debug)]
pub(super) struct Map {
    raw: MmapRaw,
}

/// The right to write to it.
#[derive(Debug)]
pub(super) struct Pen {
    map: Arc<Map>,
}

/// Maps a file of exactly `length` bytes, all of them allocated.
pub(super) fn map(file: &File, length: usize) -> io::Result<(Pen, Arc<Map>)> {
    if file.metadata()?.len() != u64::try_from(length).unwrap_or(u64::MAX) {
        return Err(io::Error::other(
            "a segment has another length than it should",
        ));
    }
    let raw = MmapOptions::new().len(length).map_raw(file)?;
    let map = Arc::new(Map { raw });
    Ok((Pen { map: map.clone() }, map))
}

impl Map {
    /// Has the pages of these bytes written to disk, with what is needed to find them.
    pub(super) fn flush(&self, from: usize, to: usize) -> io::Result<()> {
        self.raw.flush_range(from, to.saturating_sub(from))
    }
}

impl Pen {
    /// Bytes that can be written.
    pub(super) fn length(&self) -> usize {
        self.map.raw.len()
    }

    /// Copies `bytes` to `offset`; `false`: they do not fit, and nothing was written.
    #[inline]
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let fits = offset
            .checked_add(bytes.len())
            .is_some_and(|end| end <= self.length());
        if fits {
            // SAFETY: the range lies in the mapping (checked above), which lives as long as `self.map`; it is not `bytes`, which is
            // a Rust reference and so never mapped memory of ours; nobody else accesses it (2 above).
            unsafe {
                let to = self.map.raw.as_mut_ptr().add(offset);
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            }
        }
        fits
    }

    /// Writes the word that makes what was written before it count. `offset` is a multiple of 8.
    #[inline]
    pub(super) fn commit(&mut self, offset: usize, word: u64) -> bool {
        let fits = offset.is_multiple_of(8)
            && offset
                .checked_add(8)
                .is_some_and(|end| end <= self.length());
        if fits {
            // SAFETY: in bounds as above; aligned, because a mapping begins at a page and `offset` is a multiple of 8. Atomic for its
            // ordering: after a kill, the kernel must find the body wherever it finds the word.
            unsafe {
                let to = self.map.raw.as_mut_ptr().add(offset).cast::<u64>();
                AtomicU64::from_ptr(to).store(word.to_le(), Ordering::Release);
            }
        }
        fits
    }
}
