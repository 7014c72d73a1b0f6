//! `weir-tracer`: see the library.

use anyhow::Context;
use std::process::ExitCode;
use weir_tracer::Args;
use weir_tracer::keeper::process;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if process::is_meant(words.first()) {
        return process::run(words.get(1));
    }
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-tracer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let args: Args = weir_daemon::config::parse("tracer", std::env::args_os())?;
    weir_daemon::logging::init(&args.log, args.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The engine has its own thread; this serves one socket.
        .worker_threads(2)
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    runtime.block_on(async {
        let shutdown = weir_daemon::shutdown::on_signals().context("failed to listen for signals")?;
        weir_tracer::run(args, shutdown).await
    })
}
