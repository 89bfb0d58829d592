//! No memory is taken for a classification while nothing is percent-encoded.
//!
//! A binary of its own, because it counts every allocation of its thread.

#![allow(
    unsafe_code,
    reason = "a counting allocator can only be written with unsafe; it forwards to the system's"
)]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tollgate_policy::classify::Classifier;
use tollgate_policy::openapi;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is handed to `System` unchanged; counting touches only a thread-local cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, which is `System`'s.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn nothing_is_allocated_unless_something_is_percent_encoded() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/classify-sample.yaml");
    let (classifier, _) = Classifier::compile(&openapi::load(file.as_ref()).unwrap());
    let allocations = |path: &str| {
        let before = COUNT.with(Cell::get);
        let found = classifier.classify("GET", path).is_ok();
        let taken = COUNT.with(Cell::get) - before;
        assert!(found, "{path}");
        taken
    };
    for path in [
        "/v1/books",
        "/v1/books/7",
        "/v1/books/a.b.c",
        "/v2/scans/a/b/c",
        "/v1/shelves/oak/top?x=1",
    ] {
        assert_eq!(allocations(path), 0, "{path}");
    }
    assert!(allocations("/v1/books/a%20b") > 0);
}
