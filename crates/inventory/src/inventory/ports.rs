//! Ports as facts write them: `[NAME:]PORT/PROTOCOL[@NODEPORT]`, separated by commas.

use weir_model::Protocol;

/// One port of a Service, a container or an endpoint. Those of SCTP are left out: weir watches none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) number: u16,
    pub(crate) protocol: Protocol,
    /// 0 where there is none.
    pub(crate) on_nodes: u16,
}

/// The ports in a list; what cannot be read is left out.
pub(crate) fn ports(list: &str) -> impl Iterator<Item = Port> + '_ {
    list.split(',').filter_map(|item| {
        let item = item.rsplit_once(':').map_or(item, |(_, rest)| rest);
        let (port, rest) = item.split_once('/')?;
        let (protocol, node_port) = rest.split_once('@').unwrap_or((rest, "0"));
        Some(Port {
            number: port.parse().ok()?,
            protocol: Protocol::parse(protocol)?,
            on_nodes: node_port.parse().ok()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_ports_is_read_and_what_is_none_left_out() {
        let read: Vec<Port> = ports("http:80/tcp@30080,53/udp,9/sctp,rubbish,x:y/tcp,70000/tcp").collect();
        assert_eq!(
            read,
            [
                Port { number: 80, protocol: Protocol::Tcp, on_nodes: 30080 },
                Port { number: 53, protocol: Protocol::Udp, on_nodes: 0 }
            ]
        );
        assert_eq!(ports("").count(), 0);
    }
}
