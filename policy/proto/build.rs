//! Compiles the `.proto` files; no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "tollgate/control/v1/control.proto",
        "tollgate/usage/v1/usage.proto",
    ];
    let files = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
