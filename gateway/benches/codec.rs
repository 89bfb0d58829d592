//! What the codec costs for a message of about 1 KB both ways, beside others: `cargo bench -p tollgate-gateway --bench codec`, with
//! `-- Tollgate` only that.
//!
//! Prints nanoseconds per message, best and median of interleaved rounds, and allocations. How to read it: `Tollgate` of both tables
//! added up is the round trip, to stay within 6 µs and 8 allocations. The subjects that only read JSON are there to tell what of it is
//! the text; the others build a message, ask it for its other form, and drop it, as a gateway that uses them would.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench is no request path; counting allocations needs an allocator"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use buffa_descriptor::DescriptorPool as BuffaPool;
use buffa_descriptor::reflect::DynamicMessage as BuffaMessage;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde::de::{Deserialize, DeserializeSeed, IgnoredAny};
use tollgate_gateway::transcode::{Profile, Schema, Writer, write_json};

/// Many and short: on a busy machine some are left alone.
const ROUNDS: usize = 301;
const PASSES: usize = 300;

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: forwards to the system's allocator unchanged; counting touches only a thread-local cell without a destructor.
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
        // SAFETY: `pointer` came from `alloc` above, which is `System`'s.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One thing to measure: how many bytes came out of it.
struct Subject<'a> {
    name: &'static str,
    run: Box<dyn Fn() -> usize + 'a>,
    rounds: Vec<f64>,
}

impl<'a> Subject<'a> {
    fn new(name: &'static str, run: impl Fn() -> usize + 'a) -> Self {
        Self {
            name,
            run: Box::new(run),
            rounds: Vec::new(),
        }
    }

    fn allocations(&self) -> usize {
        (self.run)();
        let before = COUNT.with(Cell::get);
        (self.run)();
        COUNT.with(Cell::get) - before
    }

    fn round(&mut self) {
        let start = Instant::now();
        for _ in 0..PASSES {
            black_box((self.run)());
        }
        let nanoseconds = start.elapsed().as_secs_f64() * 1e9;
        self.rounds.push(nanoseconds / PASSES as f64);
    }
}

fn main() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let json = std::fs::read_to_string(fixtures.join("order.json")).unwrap();
    let json = json.trim_end();
    let mut compiler = protox::Compiler::new([&fixtures]).unwrap();
    compiler
        .include_imports(true)
        .open_file("order.proto")
        .unwrap();
    let set = compiler.encode_file_descriptor_set();

    let schema = Schema::read(&set).unwrap();
    let order = schema.message("shop.v1.Order").unwrap();
    let profile = Profile::default();
    let to_wire = || {
        let mut writer = Writer::new(&schema, order, &profile);
        writer.body(json.as_bytes()).unwrap();
        writer.finish().unwrap()
    };
    let wire = to_wire();
    let to_json = || {
        let mut out = Vec::with_capacity(2 * wire.len());
        write_json(&schema, order, &profile, &wire, &mut out).unwrap();
        out
    };
    assert_eq!(String::from_utf8(to_json()).unwrap(), json);

    let prost = DescriptorPool::decode(&*set).unwrap();
    let prost = prost.get_message_by_name("shop.v1.Order").unwrap();
    let buffa = Arc::new(BuffaPool::decode(&set).unwrap());
    let buffa_order = buffa.message_index("shop.v1.Order").unwrap();
    println!(
        "{} bytes of JSON, {} bytes on the wire",
        json.len(),
        wire.len()
    );

    measure(
        "JSON → wire",
        vec![
            Subject::new("serde_json, IgnoredAny", || {
                let mut reader = serde_json::Deserializer::from_str(black_box(json));
                IgnoredAny::deserialize(&mut reader).map(|_| 1).unwrap()
            }),
            Subject::new("jiter, skipped", || {
                let mut reader = jiter::Jiter::new(black_box(json.as_bytes()));
                reader.next_skip().map(|()| 1).unwrap()
            }),
            Subject::new("serde_json, Value", || {
                let value: serde_json::Value = serde_json::from_str(black_box(json)).unwrap();
                usize::from(value.is_object())
            }),
            Subject::new("prost-reflect", || {
                let mut reader = serde_json::Deserializer::from_str(black_box(json));
                let message = prost.clone().deserialize(&mut reader).unwrap();
                message.encode_to_vec().len()
            }),
            Subject::new("buffa", || {
                let message = BuffaMessage::from_json(buffa.clone(), buffa_order, black_box(json));
                message.unwrap().encode_to_vec().len()
            }),
            Subject::new("Tollgate", || to_wire().len()),
        ],
    );
    measure(
        "wire → JSON",
        vec![
            Subject::new("prost-reflect", || {
                let message = DynamicMessage::decode(prost.clone(), black_box(&*wire)).unwrap();
                serde_json::to_vec(&message).unwrap().len()
            }),
            Subject::new("buffa", || {
                let message = BuffaMessage::decode(buffa.clone(), buffa_order, black_box(&wire));
                message.unwrap().to_json().unwrap().len()
            }),
            Subject::new("Tollgate", || to_json().len()),
        ],
    );
}

fn measure(title: &str, mut subjects: Vec<Subject<'_>>) {
    // `cargo bench` adds a flag of its own.
    let chosen = std::env::args().skip(1).find(|word| word != "--bench");
    subjects.retain(|subject| chosen.as_ref().is_none_or(|name| subject.name == name));
    println!("\n| {title} | ns, best (median) | allocations |\n|---|---|---|");
    for _ in 0..ROUNDS {
        subjects.iter_mut().for_each(Subject::round);
    }
    for subject in &mut subjects {
        subject.rounds.sort_by(f64::total_cmp);
        let [best, median] = [0, ROUNDS / 2].map(|at| subject.rounds.get(at).unwrap());
        let (name, allocations) = (subject.name, subject.allocations());
        println!("| {name} | {best:.0} ({median:.0}) | {allocations} |");
    }
}
