//! Compiles the agent protocol with a compiler written in Rust, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/weir/agent/v1/agent.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".weir.agent.v1").compile_fds(files)?;
    Ok(())
}
