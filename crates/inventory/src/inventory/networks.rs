//! Names that the configuration gives to networks beyond the cluster: the longest prefix that holds an address.

use ipnet::IpNet;
use std::net::IpAddr;

/// Networks by prefix, the longest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Networks(Vec<(IpNet, Box<str>)>);

impl Networks {
    pub(crate) fn new(named: impl IntoIterator<Item = (IpNet, String)>) -> Self {
        let mut networks: Vec<(IpNet, Box<str>)> =
            named.into_iter().map(|(network, name)| (network.trunc(), name.into())).collect();
        networks.sort_by(|(a, a_name), (b, b_name)| (b.prefix_len(), a, a_name).cmp(&(a.prefix_len(), b, b_name)));
        Self(networks)
    }

    /// The name of the smallest network that holds the address.
    pub(crate) fn name(&self, address: IpAddr) -> Option<&str> {
        self.0.iter().find(|(network, _)| network.contains(&address)).map(|(_, name)| name.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_names_an_external() {
        let named = [("10.0.0.0/8", "company"), ("10.1.0.0/16", "office"), ("2001:db8::/32", "six")];
        let networks = Networks::new(named.map(|(network, name)| (network.parse().unwrap(), name.to_owned())));
        let name = |address: &str| networks.name(address.parse().unwrap());
        assert_eq!(name("10.1.2.3"), Some("office"));
        assert_eq!(name("10.2.2.3"), Some("company"));
        assert_eq!(name("2001:db8::1"), Some("six"));
        assert_eq!(name("192.0.2.1"), None);
    }
}
