//! The command line joined with the config file: a flag, else its `WEIR_*` variable, else the file's key, else the
//! default. `up` and `server` have tables of their own; the reading commands share `[cli]`.

use crate::args::{Cli, CliTable};
use crate::exit::Failure;
use clap::{Command, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use weir_daemon::config;

/// Reads the command line; prints help, version or usage and exits as clap does.
///
/// # Errors
/// [`Failure::Usage`] when the config file is named and wrong.
pub fn parse(args: &[OsString]) -> Result<Cli, Failure> {
    let mut command = with_config(Cli::command(), args)?;
    let matches = command.clone().get_matches_from(args);
    Ok(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit()))
}

fn with_config(mut command: Command, args: &[OsString]) -> Result<Command, Failure> {
    let Some(path) = config::config_path(args) else { return Ok(command) };
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let Some(name) =
        args.iter().skip(1).filter_map(|arg| arg.to_str()).find(|arg| names.iter().any(|name| name == arg))
    else {
        return Ok(command);
    };
    let wrong = |error: config::ConfigError| Failure::Usage(error.to_string());
    let table = match name {
        "up" | "server" => name,
        "completions" | "store" => return Ok(command),
        _ => {
            config::with_file(CliTable::command(), "cli", &path).map_err(wrong)?;
            "cli"
        }
    };
    let Some(found) = command.find_subcommand(name).cloned() else { return Ok(command) };
    let filled = if table == "cli" {
        config::with_shared_file(found, table, &path)
    } else {
        config::with_file(found, table, &path)
    };
    let filled = filled.map_err(wrong)?;
    command = command.mut_subcommand(name, |_| filled);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn reading_commands_share_one_table() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[cli]\nserver = 'http://127.0.0.1:1'\nexact = true\n").unwrap();
        for command in ["status", "edges", "connections", "transactions", "metadata", "doctor"] {
            let mut args = words(&format!("weir {command} --config"));
            args.push(file.path().into());
            let cli = parse(&args).unwrap();
            let text = format!("{cli:?}");
            assert!(text.contains("http://127.0.0.1:1") && text.contains("exact: true"), "{text}");
        }
    }

    #[test]
    fn top_takes_what_it_has_of_the_shared_table() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[cli]\nserver = 'http://127.0.0.1:1'\noutput = 'json'\n").unwrap();
        let mut args = words("weir top --config");
        args.push(file.path().into());
        assert!(format!("{:?}", parse(&args).unwrap()).contains("http://127.0.0.1:1"));
        std::fs::write(file.path(), "[cli]\nservr = 'x'\n").unwrap();
        assert!(matches!(parse(&args), Err(Failure::Usage(text)) if text.contains("`servr`")));
    }

    #[test]
    fn a_key_that_does_not_exist_is_wrong_usage() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[cli]\nservr = 'x'\n").unwrap();
        let mut args = words("weir edges --config");
        args.push(file.path().into());
        assert!(matches!(parse(&args), Err(Failure::Usage(text)) if text.contains("`servr`")));
    }
}
