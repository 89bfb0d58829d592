//! Tollgate: one binary, its roles and tools. Installs what the whole process shares, then hands over to the verb.

use std::process::ExitCode;

mod cli;
mod roles;

/// Steady memory under many small, short-lived values.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // First of all: a second provider is linked in through a dependency, and the first TLS use would have to guess. An error
    // means one is installed already, which cannot be before this line.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    cli::main()
}
