//! Settings: a flag, else its `WEIR_*` variable, else its key in the config file, else the default.
//!
//! The config file is TOML with a table for each part (`[tracer]`, `[agent]`, `[server]`, `[up]`, `[cli]`); a key is
//! the flag's name with `_` for `-`. It is named by `--config FILE` or `WEIR_CONFIG`; without one, none is read.

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What is wrong with a config file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("failed to read config file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("failed to parse config file {path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A key that this part does not have.
    #[error("failed to use config file {path}: [{table}] has no setting `{key}`; it has: {known}")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// The keys that exist.
        known: String,
    },
    /// A value that is neither text, number nor boolean, nor a list of those.
    #[error("failed to use config file {path}: [{table}] {key} must be a text, a number, a boolean or a list of them")]
    Value {
        /// The file.
        path: PathBuf,
        /// The table.
        table: String,
        /// The key.
        key: String,
    },
}

/// Parses the command line of a part whose settings are one table of the config file. Prints usage and exits as clap
/// does (code 2 on wrong usage).
///
/// # Errors
/// [`ConfigError`] when the config file is named and wrong.
pub fn parse<T: CommandFactory + FromArgMatches>(
    table: &str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<T, ConfigError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut command = T::command();
    if let Some(path) = config_path(&args) {
        command = with_file(command, table, &path)?;
    }
    let matches: ArgMatches = command.clone().get_matches_from(args);
    Ok(T::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit()))
}

/// The file that `--config` or `WEIR_CONFIG` names.
pub fn config_path(args: &[OsString]) -> Option<PathBuf> {
    let mut rest = args.iter().skip(1);
    while let Some(arg) = rest.next() {
        if arg == "--config" {
            return rest.next().map(PathBuf::from);
        }
        if let Some(path) = arg.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Some(PathBuf::from(path));
        }
    }
    std::env::var_os("WEIR_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// `command` with the defaults of its arguments taken from `table` in the file.
///
/// # Errors
/// [`ConfigError`] when the file is wrong.
pub fn with_file(command: Command, table: &str, path: &Path) -> Result<Command, ConfigError> {
    filled(command, table, path, Unknown::Refused)
}

/// As [`with_file`] for a table that several commands share: a key that this one has no flag for is another's.
///
/// # Errors
/// As [`with_file`], but never [`ConfigError::UnknownKey`].
pub fn with_shared_file(command: Command, table: &str, path: &Path) -> Result<Command, ConfigError> {
    filled(command, table, path, Unknown::Anothers)
}

/// What a key without a flag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unknown {
    Refused,
    Anothers,
}

fn filled(mut command: Command, table: &str, path: &Path, unknown: Unknown) -> Result<Command, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    let document: toml::Table =
        text.parse().map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })?;
    let Some(settings) = document.get(table).and_then(toml::Value::as_table) else { return Ok(command) };
    let known: Vec<String> = command
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .filter(|long| !matches!(*long, "config" | "help" | "version"))
        .map(|long| long.replace('-', "_"))
        .collect();
    for (key, value) in settings {
        let name = key.replace('_', "-");
        let Some(id) =
            command.get_arguments().find(|arg| arg.get_long() == Some(&name)).map(|arg| arg.get_id().clone())
        else {
            if unknown == Unknown::Anothers {
                continue;
            }
            return Err(ConfigError::UnknownKey {
                path: path.into(),
                table: table.into(),
                key: key.clone(),
                known: known.join(", "),
            });
        };
        let values = texts(value).ok_or_else(|| ConfigError::Value {
            path: path.into(),
            table: table.into(),
            key: key.clone(),
        })?;
        command = command.mut_arg(id, |arg| arg.default_values(values));
    }
    Ok(command)
}

fn texts(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Float(number) => Some(vec![number.to_string()]),
        toml::Value::Boolean(flag) => Some(vec![flag.to_string()]),
        toml::Value::Array(list) => list.iter().map(texts).collect::<Option<Vec<_>>>().map(|lists| lists.concat()),
        toml::Value::Table(_) | toml::Value::Datetime(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Settings {
        #[arg(long)]
        config: Option<PathBuf>,
        #[arg(long, default_value = "10s")]
        interval: String,
        #[arg(long = "max-body", default_value_t = 5)]
        max_body: u64,
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn args(words: &[&str], file: &tempfile::NamedTempFile) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["weir".into(), "--config".into(), file.path().into()];
        args.extend(words.iter().map(OsString::from));
        args
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = file("[agent]\ninterval = '3s'\nmax_body = 7\n");
        let settings: Settings = parse("agent", args(&["--max-body", "9"], &file)).unwrap();
        assert_eq!((settings.interval.as_str(), settings.max_body), ("3s", 9));
        assert!(settings.config.is_some());
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_known_ones() {
        let file = file("[agent]\nintervall = '3s'\n");
        let error = parse::<Settings>("agent", args(&[], &file)).unwrap_err();
        assert!(error.to_string().ends_with("[agent] has no setting `intervall`; it has: interval, max_body"));
    }
}
