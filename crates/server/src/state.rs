//! Where current state is kept: in the data folder alone, or also where other machines reach it.

use crate::args::WrongSetting;
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use weir_daemon::clock::Clock;
use weir_discovery::kubernetes::client::{Access, own_namespace};
use weir_discovery::kubernetes::pace::Pace;
use weir_store::StoreError;
use weir_store::configmap::{self, ConfigMapState};
use weir_store::etcd::{self, Etcd, LEASE_MIN};
use weir_store::shared::SharedState;

const ETCD_PREFIX: &str = "/weir";
const CONFIGMAP_PREFIX: &str = "weir";
const CONFIGMAP_BYTES: &str = "12MiB";
const LEASE: &str = "15s";

/// The settings of current state.
#[derive(Clone, Debug, Args)]
pub struct StateArgs {
    /// Where transactions and metadata are kept: in the data folder, or also in etcd or in ConfigMaps, from where a server
    /// with an empty folder goes on. History, coverage and DNS stay in the folder.
    #[arg(long, env = "WEIR_STATE", value_enum, default_value_t = Backend::Embedded, value_name = "WHERE")]
    pub state: Backend,

    /// The members of etcd, for --state etcd; several times, or separated by commas.
    #[arg(long, env = "WEIR_ETCD_ENDPOINTS", value_name = "URL", value_delimiter = ',')]
    pub etcd_endpoints: Vec<String>,

    /// What every key in etcd begins with: one for each server that shares an etcd.
    #[arg(long, env = "WEIR_ETCD_PREFIX", value_name = "PREFIX", default_value = ETCD_PREFIX, value_parser = prefix)]
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
    #[arg(long, env = "WEIR_ETCD_LEASE", value_name = "DURATION", default_value = LEASE, value_parser = lease)]
    pub etcd_lease: Duration,

    /// The namespace of the ConfigMaps, for --state configmap, at the API server of --kubernetes [default in a pod: its own]
    #[arg(long, env = "WEIR_CONFIGMAP_NAMESPACE", value_name = "NAMESPACE", value_parser = namespace)]
    pub configmap_namespace: Option<String>,

    /// What the ConfigMaps' names begin with: one for each server that shares a namespace.
    #[arg(long, env = "WEIR_CONFIGMAP_PREFIX", value_name = "NAME", default_value = CONFIGMAP_PREFIX, value_parser = name)]
    pub configmap_prefix: String,

    /// How many bytes of rows the ConfigMaps may have; what is more is refused, and waits in the log and with the agents.
    #[arg(long, env = "WEIR_CONFIGMAP_BYTES", value_name = "BYTES", default_value = CONFIGMAP_BYTES, value_parser = configmap_bytes)]
    pub configmap_bytes: u64,

    /// How long this server may be silent before another may take over the ConfigMaps; whole seconds.
    #[arg(long, env = "WEIR_CONFIGMAP_LEASE", value_name = "DURATION", default_value = LEASE, value_parser = lease)]
    pub configmap_lease: Duration,
}

/// Where transactions and metadata are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// In the data folder.
    Embedded,
    /// Also in etcd.
    Etcd,
    /// Also in ConfigMaps: the demonstration, for small clusters.
    #[value(name = "configmap")]
    ConfigMap,
}

/// What is shared beside the folder, and all that is needed to open it.
pub(crate) enum Place {
    /// Nothing.
    Folder,
    Etcd(Box<etcd::Options>),
    ConfigMaps(Box<configmap::Options>),
}

impl Place {
    /// Opens what is shared, where anything is.
    ///
    /// # Errors
    /// When another server owns it, or it cannot be reached.
    pub(crate) fn open(&self) -> Result<Option<Arc<dyn SharedState>>, StoreError> {
        Ok(match self {
            Self::Folder => None,
            Self::Etcd(options) => Some(Arc::new(Etcd::open(options)?)),
            Self::ConfigMaps(options) => Some(Arc::new(ConfigMapState::open(options)?)),
        })
    }
}

impl StateArgs {
    /// What they say, of a server whose folder is `folder` and that reaches the API server by `access`.
    ///
    /// # Errors
    /// [`WrongSetting`] when one is missing or says nothing; a file that cannot be read.
    pub(crate) fn place(
        &self,
        folder: &Path,
        access: Option<&Access>,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Place> {
        self.check()?;
        Ok(match self.state {
            Backend::Embedded => Place::Folder,
            Backend::Etcd => Place::Etcd(Box::new(self.etcd(folder)?)),
            Backend::ConfigMap => Place::ConfigMaps(Box::new(self.config_maps(folder, access, clock)?)),
        })
    }

    /// Refuses settings of a state that is not asked for: whoever gave them believes that it is.
    fn check(&self) -> Result<(), WrongSetting> {
        let etcd = [
            ("--etcd-endpoints", !self.etcd_endpoints.is_empty()),
            ("--etcd-prefix", self.etcd_prefix != ETCD_PREFIX),
            ("--etcd-user", self.etcd_user.is_some()),
            ("--etcd-ca", self.etcd_ca.is_some()),
            ("--etcd-cert", self.etcd_cert.is_some()),
            ("--etcd-insecure", self.etcd_insecure),
            ("--etcd-lease", Ok(self.etcd_lease) != lease(LEASE)),
        ];
        let config_maps = [
            ("--configmap-namespace", self.configmap_namespace.is_some()),
            ("--configmap-prefix", self.configmap_prefix != CONFIGMAP_PREFIX),
            ("--configmap-bytes", Ok(self.configmap_bytes) != configmap_bytes(CONFIGMAP_BYTES)),
            ("--configmap-lease", Ok(self.configmap_lease) != lease(LEASE)),
        ];
        for (state, wanted, given) in
            [(Backend::Etcd, "etcd", &etcd[..]), (Backend::ConfigMap, "configmap", &config_maps[..])]
        {
            if self.state == state {
                continue;
            }
            if let Some((flag, _)) = given.iter().find(|(_, is_given)| *is_given) {
                return Err(WrongSetting(format!(
                    "{flag} without --state {wanted} does nothing; give both or neither"
                )));
            }
        }
        Ok(())
    }

    fn etcd(&self, folder: &Path) -> anyhow::Result<etcd::Options> {
        if self.etcd_endpoints.is_empty() {
            let text = "--state etcd: no endpoint is named; give --etcd-endpoints http://127.0.0.1:2379";
            return Err(WrongSetting(text.into()).into());
        }
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
        Ok(etcd::Options {
            endpoints: self.etcd_endpoints.clone(),
            prefix: self.etcd_prefix.clone(),
            user,
            ca: self.etcd_ca.as_deref().map(|file| read("etcd-ca", file)).transpose()?,
            identity,
            insecure: self.etcd_insecure,
            lease: self.etcd_lease,
            holder: holder(folder),
        })
    }

    fn config_maps(
        &self,
        folder: &Path,
        access: Option<&Access>,
        clock: &Arc<dyn Clock>,
    ) -> Result<configmap::Options, WrongSetting> {
        let missing = |text: &str| WrongSetting(format!("--state configmap: {text}"));
        let access = access.ok_or_else(|| {
            missing("no API server is known that could keep them; run in a cluster, or give --kubernetes URL")
        })?;
        let namespace = self.configmap_namespace.clone().or_else(own_namespace);
        let namespace = namespace.ok_or_else(|| missing("no namespace is named; give --configmap-namespace NAME"))?;
        let now = Arc::clone(clock);
        Ok(configmap::Options {
            access: access.clone(),
            pace: Pace::new(move || now.wall()),
            namespace,
            prefix: self.configmap_prefix.clone(),
            bytes_max: self.configmap_bytes,
            lease: self.configmap_lease,
            holder: holder(folder),
        })
    }
}

/// Who this process is, for a server that is refused.
fn holder(folder: &Path) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("process {} on {} with data folder {}", std::process::id(), host.trim(), folder.display())
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

fn namespace(text: &str) -> Result<String, String> {
    label(text, 63).ok_or_else(|| "write a namespace's name: a-z, 0-9 and -, at most 63 bytes".into())
}

fn name(text: &str) -> Result<String, String> {
    label(text, 40).ok_or_else(|| "write a-z, 0-9 and -, at most 40 bytes, for example weir".into())
}

/// A DNS label (RFC 1123).
fn label(text: &str, bytes_max: usize) -> Option<String> {
    let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let holds = (1..=bytes_max).contains(&text.len())
        && text.starts_with(is_good)
        && text.ends_with(is_good)
        && text.chars().all(|c| is_good(c) || c == '-');
    holds.then(|| text.to_owned())
}

fn configmap_bytes(text: &str) -> Result<u64, String> {
    let bytes = weir_daemon::size::bytes(text)?;
    // Below, hardly a node's rows; above, more of etcd's quota of 2 GiB than is anybody's to take.
    if !(64 << 10..=32 << 20).contains(&bytes) {
        return Err("write a size between 64KiB and 32MiB".into());
    }
    Ok(bytes)
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
            (vec!["--state", "redis"], "configmap"),
            (vec!["--configmap-prefix", "Weir"], "for example weir"),
            (vec!["--configmap-prefix", "weir-"], "for example weir"),
            (vec!["--configmap-namespace", "a.b"], "a namespace's name"),
            (vec!["--configmap-bytes", "1GiB"], "between 64KiB and 32MiB"),
            (vec!["--configmap-lease", "1s"], "between 2 s and 5m"),
        ] {
            let error = parse(&wrong).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    fn place(more: &[&str], access: Option<&Access>) -> anyhow::Result<Place> {
        let clock: Arc<dyn Clock> = Arc::new(weir_daemon::clock::SystemClock::new());
        parse(more).unwrap().place(Path::new("/data"), access, &clock)
    }

    #[test]
    fn settings_of_a_state_that_is_not_asked_for_or_cannot_be_are_wrong_usage() {
        let access = Access { url: "https://127.0.0.1:1".into(), token_file: None, ca_file: None };
        for (wrong, access, text) in [
            (vec!["--etcd-endpoints", "http://127.0.0.1:1"], None, "--etcd-endpoints without --state etcd"),
            (vec!["--etcd-insecure"], None, "--etcd-insecure without --state etcd"),
            (vec!["--etcd-lease", "20s"], None, "--etcd-lease without --state etcd"),
            (vec!["--configmap-namespace", "weir"], None, "--configmap-namespace without --state configmap"),
            (vec!["--configmap-bytes", "1MiB"], None, "--configmap-bytes without --state configmap"),
            (vec!["--state", "configmap", "--etcd-ca", "x"], Some(&access), "--etcd-ca without --state etcd"),
            (vec!["--state", "etcd"], None, "give --etcd-endpoints"),
            (vec!["--state", "configmap", "--configmap-namespace", "weir"], None, "give --kubernetes URL"),
            (vec!["--state", "configmap"], Some(&access), "give --configmap-namespace NAME"),
        ] {
            let error = place(&wrong, access).map(drop).unwrap_err();
            assert!(error.is::<WrongSetting>(), "{wrong:?}: {error}");
            assert!(error.to_string().contains(text), "{error}");
        }
        let missing = ["--state", "etcd", "--etcd-endpoints", "https://127.0.0.1:1", "--etcd-ca", "/nowhere"];
        let error = place(&missing, None).map(drop).unwrap_err();
        assert!(error.to_string().contains("failed to read /nowhere; --etcd-ca names it"), "{error}");
        assert!(matches!(place(&[], Some(&access)).unwrap(), Place::Folder));
    }

    #[test]
    fn a_password_is_the_files_text_without_its_line_end_and_the_holder_says_where_it_runs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "se cret\n").unwrap();
        let path = file.path().to_str().unwrap();
        let args = parse(&["--state", "etcd", "--etcd-user", "weir", "--etcd-password-file", path]).unwrap();
        let args = StateArgs { etcd_endpoints: vec!["http://127.0.0.1:1".into()], ..args };
        let options = args.etcd(Path::new("/data")).unwrap();
        assert_eq!(options.user, Some(("weir".into(), "se cret".into())));
        assert!(options.holder.starts_with(&format!("process {} on ", std::process::id())));
        assert!(options.holder.ends_with("with data folder /data"));
    }
}
