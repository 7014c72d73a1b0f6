//! Where current state is kept: in the data folder alone, or also where other machines reach it.

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use weir_store::etcd::{Etcd, LEASE_MIN, Options};
use weir_store::shared::SharedState;

/// The settings of current state.
#[derive(Clone, Debug, Args)]
pub struct StateArgs {
    /// Where transactions and metadata are kept: in the data folder, or also in etcd, from where a server with an empty
    /// folder goes on. History, coverage and DNS stay in the folder.
    #[arg(long, env = "WEIR_STATE", value_enum, default_value_t = Backend::Embedded, value_name = "WHERE")]
    pub state: Backend,

    /// The members of etcd, for --state etcd; several times, or separated by commas.
    #[arg(long, env = "WEIR_ETCD_ENDPOINTS", value_name = "URL", value_delimiter = ',')]
    pub etcd_endpoints: Vec<String>,

    /// What every key in etcd begins with: one for each server that shares an etcd.
    #[arg(long, env = "WEIR_ETCD_PREFIX", value_name = "PREFIX", default_value = "/weir", value_parser = prefix)]
    pub etcd_prefix: String,

    /// The user's name in etcd.
    #[arg(long, env = "WEIR_ETCD_USER", value_name = "NAME", requires = "etcd_password_file")]
    pub etcd_user: Option<String>,

    /// A file that holds that user's password.
    #[arg(long, env = "WEIR_ETCD_PASSWORD_FILE", value_name = "FILE", requires = "etcd_user")]
    pub etcd_password_file: Option<PathBuf>,

    /// A file that holds the certificates that vouch for etcd, as PEM.
    #[arg(long, env = "WEIR_ETCD_CA", value_name = "FILE")]
    pub etcd_ca: Option<PathBuf>,

    /// A file that holds this server's certificate for etcd, as PEM.
    #[arg(long, env = "WEIR_ETCD_CERT", value_name = "FILE", requires = "etcd_key")]
    pub etcd_cert: Option<PathBuf>,

    /// A file that holds that certificate's key, as PEM.
    #[arg(long, env = "WEIR_ETCD_KEY", value_name = "FILE", requires = "etcd_cert")]
    pub etcd_key: Option<PathBuf>,

    /// Allows http:// to an etcd on another machine: whoever is in between reads and writes along.
    #[arg(long, env = "WEIR_ETCD_INSECURE")]
    pub etcd_insecure: bool,

    /// How long this server may be silent before another may take over what it keeps in etcd; whole seconds.
    #[arg(long, env = "WEIR_ETCD_LEASE", value_name = "DURATION", default_value = "15s", value_parser = lease)]
    pub etcd_lease: Duration,
}

/// Where transactions and metadata are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// In the data folder.
    Embedded,
    /// Also in etcd.
    Etcd,
}

impl StateArgs {
    /// Opens what is shared, where anything is.
    ///
    /// # Errors
    /// When a setting is missing, a file cannot be read, or another server owns it.
    pub(crate) fn open(&self, folder: &Path) -> anyhow::Result<Option<Arc<dyn SharedState>>> {
        match self.state {
            Backend::Embedded if self.etcd_endpoints.is_empty() => Ok(None),
            Backend::Embedded => {
                anyhow::bail!("failed to use --etcd-endpoints without --state etcd; give both or neither")
            }
            Backend::Etcd => {
                let etcd = Etcd::open(&self.options(folder)?).map_err(|error| anyhow::anyhow!("failed to {error}"))?;
                Ok(Some(Arc::new(etcd)))
            }
        }
    }

    fn options(&self, folder: &Path) -> anyhow::Result<Options> {
        let user = match (&self.etcd_user, &self.etcd_password_file) {
            (Some(name), Some(file)) => {
                let password = String::from_utf8(read("etcd-password-file", file)?)
                    .with_context(|| format!("failed to use {} as a password: it is no text", file.display()))?;
                Some((name.clone(), password.trim_end_matches(['\r', '\n']).to_owned()))
            }
            _ => None,
        };
        let identity = match (&self.etcd_cert, &self.etcd_key) {
            (Some(certificate), Some(key)) => Some((read("etcd-cert", certificate)?, read("etcd-key", key)?)),
            _ => None,
        };
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        Ok(Options {
            endpoints: self.etcd_endpoints.clone(),
            prefix: self.etcd_prefix.clone(),
            user,
            ca: self.etcd_ca.as_deref().map(|file| read("etcd-ca", file)).transpose()?,
            identity,
            insecure: self.etcd_insecure,
            lease: self.etcd_lease,
            holder: format!("process {} on {host} with data folder {}", std::process::id(), folder.display()),
        })
    }
}

fn read(flag: &str, file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("failed to read {}; --{flag} names it", file.display()))
}

fn prefix(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    if !trimmed.starts_with('/') || trimmed.len() > 200 || trimmed.chars().any(char::is_control) {
        return Err("write a slash and a name of at most 200 bytes, for example /weir".into());
    }
    Ok(trimmed.to_owned())
}

fn lease(text: &str) -> Result<Duration, String> {
    let lease = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if lease < LEASE_MIN || lease > Duration::from_secs(300) || lease.subsec_nanos() != 0 {
        return Err(format!("write whole seconds between {} s and 5m", LEASE_MIN.as_secs()));
    }
    Ok(lease)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn parse(more: &[&str]) -> Result<StateArgs, clap::Error> {
        crate::Args::try_parse_from(["weir-server"].iter().chain(more)).map(|args| args.state)
    }

    #[test]
    fn settings_that_miss_their_other_half_or_say_nothing_are_refused_with_the_fix() {
        for (wrong, text) in [
            (vec!["--etcd-user", "weir"], "--etcd-password-file"),
            (vec!["--etcd-cert", "c"], "--etcd-key"),
            (vec!["--etcd-lease", "1s"], "between 2 s and 5m"),
            (vec!["--etcd-lease", "2500ms"], "whole seconds"),
            (vec!["--etcd-prefix", "weir"], "for example /weir"),
            (vec!["--etcd-prefix", "/"], "for example /weir"),
            (vec!["--state", "redis"], "embedded"),
        ] {
            let error = parse(&wrong).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        let open = |more: &[&str]| parse(more).unwrap().open(Path::new("/data")).map(drop).unwrap_err().to_string();
        assert!(open(&["--etcd-endpoints", "http://127.0.0.1:1"]).contains("without --state etcd"));
        assert!(open(&["--state", "etcd"]).contains("give --etcd-endpoints"));
        let missing = ["--state", "etcd", "--etcd-endpoints", "https://127.0.0.1:1", "--etcd-ca", "/nowhere"];
        assert!(open(&missing).contains("failed to read /nowhere; --etcd-ca names it"));
    }

    #[test]
    fn a_password_is_the_files_text_without_its_line_end_and_the_holder_says_where_it_runs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "se cret\n").unwrap();
        let path = file.path().to_str().unwrap();
        let args = parse(&["--state", "etcd", "--etcd-user", "weir", "--etcd-password-file", path]).unwrap();
        let options = args.options(Path::new("/data")).unwrap();
        assert_eq!(options.user, Some(("weir".into(), "se cret".into())));
        assert!(options.holder.starts_with(&format!("process {} on ", std::process::id())));
        assert!(options.holder.ends_with("with data folder /data"));
    }
}
