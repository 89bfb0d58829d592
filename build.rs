//! Compiles the bookstore the demo service speaks gRPC by; no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in ["openapi-specs/bookstore.proto", "gateway/protos"] {
        println!("cargo:rerun-if-changed={file}");
    }
    let files = protox::compile(["bookstore.proto"], ["openapi-specs", "gateway/protos"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .compile_fds(files)?;
    Ok(())
}
