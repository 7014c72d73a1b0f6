//! Compiles what is asked of container runtimes with a compiler written in Rust, so that no `protoc` has to be
//! installed. The server's side is for tests: they stand in for a runtime.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/runtime/v1/runtime.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
