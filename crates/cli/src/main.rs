//! The `weir` binary: parses, starts what the command needs, and ends with its exit code.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use weir_cli::args::{Cli, Command};
use weir_cli::exit::{Failure, Verdict, conclude};
use weir_cli::read::query::Query;
use weir_cli::read::{self, Question};
use weir_cli::{doctor, settings, store, top, up};
use weir_wire::api::{ConnectionRow, DnsRow, MetadataRow, Series, Transaction};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    conclude(&settings::parse(&args).and_then(run))
}

fn run(cli: Cli) -> Result<Verdict, Failure> {
    match cli.command {
        Command::Up(args) => up::run(&args),
        Command::Server(args) => serve(*args),
        Command::Store(args) => store::run(&args),
        Command::Completions { shell } => completions(shell),
        command => answer(command),
    }
}

fn serve(args: weir_server::Args) -> Result<Verdict, Failure> {
    weir_daemon::logging::init(&args.log, args.log_format).map_err(|error| Failure::Usage(format!("{error:#}")))?;
    let runtime = tokio::runtime::Runtime::new().map_err(anyhow::Error::new)?;
    runtime.block_on(async {
        let shutdown = weir_daemon::shutdown::on_signals().map_err(anyhow::Error::new)?;
        weir_server::run(args, shutdown).await.map_err(|error| {
            match error.downcast::<weir_server::WrongSetting>() {
                Ok(wrong) => Failure::Usage(wrong.to_string()),
                Err(error) => Failure::Failed(error),
            }
        })?;
        Ok(Verdict::Done)
    })
}

fn completions(shell: clap_complete::Shell) -> Result<Verdict, Failure> {
    let mut script = Vec::new();
    let mut command = <Cli as clap::CommandFactory>::command();
    clap_complete::generate(shell, &mut command, "weir", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Verdict::Done)
}

/// The commands that ask and print.
fn answer(command: Command) -> Result<Verdict, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::new)?;
    runtime.block_on(async {
        match command {
            Command::Status(args) => read::status::run(&args).await,
            Command::Edges(args) => read::edges::run(&args).await,
            Command::Diff(args) => read::diff::run(&args).await,
            Command::Series(args) => {
                let question = Question { command: "series", query: Query::from(&args) };
                read::run::<Series>(&args.edges.read, &question).await
            }
            Command::Connections(args) => {
                let question = Question { command: "connections", query: Query::from(&args) };
                if args.follow {
                    read::follow::run(&args.rows.read, &question).await
                } else {
                    read::run::<ConnectionRow>(&args.rows.read, &question).await
                }
            }
            Command::Transactions(args) => {
                let question = Question { command: "transactions", query: Query::from(&args) };
                read::run::<Transaction>(&args.read, &question).await
            }
            Command::Metadata(args) => {
                let question = Question { command: "metadata", query: Query::from(&args) };
                read::run::<MetadataRow>(&args.read, &question).await
            }
            Command::Dns(args) => {
                read::run::<DnsRow>(&args.read, &Question { command: "dns", query: Query::from(&args) }).await
            }
            Command::Top(args) => top::run(&args).await,
            Command::Doctor(args) => doctor::run(&args).await,
            Command::Up(_) | Command::Server(_) | Command::Store(_) | Command::Completions { .. } => Ok(Verdict::Done),
        }
    })
}
