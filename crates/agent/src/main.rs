//! `weir-agent`: see the library.

use std::process::ExitCode;
use weir_agent::Args;
use weir_agent::metadata::settings::WrongSetting;
use weir_daemon::config::{self, ConfigError};
use weir_daemon::{logging, shutdown};

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-agent: {error:#}");
            // As clap has it: wrong usage, which another try would not mend.
            if error.is::<WrongSetting>() || error.is::<ConfigError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn start() -> anyhow::Result<()> {
    let args: Args = config::parse("agent", std::env::args_os())?;
    logging::init(&args.log, args.log_format)?;
    if let Some(group) = args.prepare_spool {
        return Ok(weir_agent::spool::prepare::prepare(&args.spool_folder(), group)?);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(async {
        let shutdown = shutdown::on_signals()?;
        weir_agent::run(args, shutdown).await
    });
    // A blocking read of a hung disk must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    outcome
}
