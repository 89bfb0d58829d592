//! Little memory is taken to turn a message from JSON into wire bytes and back: what is allocated does not grow with the number of fields.
//!
//! A binary of its own, because it counts every allocation of its thread.

#![allow(
    unsafe_code,
    reason = "a counting allocator can only be written with unsafe; it forwards to the system's"
)]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use tollgate_gateway::transcode::{Profile, Schema, Writer, write_json};

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

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` or `realloc` above, which are `System`'s.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_message_of_a_kilobyte_takes_at_most_eight_allocations_both_ways() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let json = std::fs::read(fixtures.join("order.json")).unwrap();
    let mut compiler = protox::Compiler::new([&fixtures]).unwrap();
    compiler
        .include_imports(true)
        .open_file("order.proto")
        .unwrap();
    let schema = Schema::read(&compiler.encode_file_descriptor_set()).unwrap();
    let order = schema.message("shop.v1.Order").unwrap();
    let profile = Profile::default();

    let before = COUNT.with(Cell::get);
    let mut writer = Writer::new(&schema, order, &profile);
    writer.body(&json).unwrap();
    let wire = writer.finish().unwrap();
    let mut out = Vec::with_capacity(2 * wire.len());
    write_json(&schema, order, &profile, &wire, &mut out).unwrap();
    let taken = COUNT.with(Cell::get) - before;

    assert_eq!(
        String::from_utf8_lossy(&out),
        String::from_utf8_lossy(&json).trim_end()
    );
    assert!(taken <= 8, "{taken} allocations");
}
