//! `tollgate version`: version and target of this binary.

use std::process::ExitCode;

/// Prints one line.
pub(super) fn run() -> anyhow::Result<ExitCode> {
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    println!("tollgate {} ({arch}-{os})", env!("CARGO_PKG_VERSION"));
    Ok(ExitCode::SUCCESS)
}
