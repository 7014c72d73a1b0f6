//! The parts of the API's answers that are used. Pure.
//!
//! Nothing but a container's id must be there: engines of other versions and makes leave members out or set them to
//! `null`, and what they do not tell is unknown.

use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// One container of `GET /containers/json?all=true`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    pub(super) id: String,
    /// `created`, `running`, `paused`, `restarting`, `exited`, `removing`, `dead`.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) state: String,
}

/// `GET /containers/ID/json`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    pub(super) id: String,
    /// With a slash before it.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) created: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) state: State,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) config: Config,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) host_config: HostConfig,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) network_settings: NetworkSettings,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct State {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) restarting: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) running: bool,
    /// 0 when no process runs.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) pid: u32,
    /// RFC 3339; of the year 1 when it never was.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) started_at: String,
    /// The last time, even while it runs again.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) finished_at: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Config {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) image: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    exposed_ports: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HostConfig {
    /// `default`, `bridge`, `host`, `none`, `container:ID`, or a network's name.
    #[serde(default, deserialize_with = "or_default")]
    pub(super) network_mode: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkSettings {
    #[serde(default, deserialize_with = "or_default")]
    ports: BTreeMap<String, serde_json::Value>,
    #[serde(default, deserialize_with = "or_default")]
    networks: BTreeMap<String, Network>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Network {
    #[serde(default, rename = "IPAddress", deserialize_with = "or_default")]
    v4: String,
    #[serde(default, rename = "GlobalIPv6Address", deserialize_with = "or_default")]
    v6: String,
}

/// One line of `GET /events`.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    #[serde(rename = "Type")]
    pub(super) kind: String,
    /// One word, for some followed by a colon and more.
    #[serde(rename = "Action")]
    pub(super) action: String,
    #[serde(rename = "Actor")]
    pub(super) actor: Actor,
    /// Unix nanoseconds.
    #[serde(rename = "timeNano", default)]
    pub(super) at: i64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Actor {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) attributes: BTreeMap<String, String>,
}

impl Inspected {
    /// The addresses in its own networks.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let texts = self.network_settings.networks.values().flat_map(|network| [&network.v4, &network.v6]);
        texts.filter_map(|text| Some(text.parse::<IpAddr>().ok()?.to_canonical())).collect()
    }

    /// The ports that it offers, inside: `80/tcp,53/udp`, by number.
    pub(super) fn ports(&self) -> String {
        let known = self.config.exposed_ports.keys().chain(self.network_settings.ports.keys());
        let mut ports: Vec<(u16, &str)> = known
            .filter_map(|text| {
                let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
                Some((port.parse().ok()?, protocol))
            })
            .collect();
        ports.sort_unstable();
        ports.dedup();
        let texts: Vec<String> = ports.into_iter().map(|(port, protocol)| format!("{port}/{protocol}")).collect();
        texts.join(",")
    }
}

/// An RFC 3339 time in Unix nanoseconds; 0 for none, never, or no time.
pub(super) fn time(text: &str) -> i64 {
    let Ok(time) = text.parse::<jiff::Timestamp>() else { return 0 };
    i64::try_from(time.as_nanosecond()).unwrap_or(0).max(0)
}

/// `null` is as good as absent.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_leaves_out_or_sets_to_null_is_unknown() {
        let text = r#"{"Id":"ab","Config":null,"NetworkSettings":{"Ports":null,"Networks":{"x":{"IPAddress":null}}}}"#;
        let told: Inspected = serde_json::from_str(text).unwrap();
        assert_eq!((told.addresses(), told.ports(), told.state.pid), (Vec::new(), String::new(), 0));
    }

    #[test]
    fn ports_are_sorted_by_number_and_said_once() {
        let text = r#"{"Id":"ab","Config":{"ExposedPorts":{"8080/tcp":{},"53/udp":{},"80/tcp":{}}},
            "NetworkSettings":{"Ports":{"8080/tcp":[{"HostPort":"1"}],"443/tcp":null,"x/tcp":null}}}"#;
        let told: Inspected = serde_json::from_str(text).unwrap();
        assert_eq!(told.ports(), "53/udp,80/tcp,443/tcp,8080/tcp");
    }

    #[test]
    fn times_are_nanoseconds_and_the_year_1_is_never() {
        assert_eq!(time("2026-11-23T16:52:26.63635469Z"), 1_795_452_746_636_354_690);
        assert_eq!(time("2026-11-23T17:52:26+01:00"), 1_795_452_746_000_000_000);
        assert_eq!((time("0001-01-01T00:00:00Z"), time(""), time("soon")), (0, 0, 0));
    }
}
