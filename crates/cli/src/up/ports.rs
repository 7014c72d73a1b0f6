//! Whether the addresses that the parts shall listen on are free, and if not, who has them.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// An address that a part shall have, and its flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The flag.
    pub flag: &'static str,
    /// The address.
    pub address: SocketAddr,
}

/// What is wrong with one of `wanted`, with the fix; nothing when all can be had. Port 0 always can.
pub fn fault(wanted: &[Wanted], proc: &Path) -> Option<String> {
    for (index, one) in wanted.iter().enumerate() {
        let Wanted { flag, address } = *one;
        if address.port() == 0 {
            continue;
        }
        if let Some(twin) = wanted[..index].iter().find(|other| other.address.port() == address.port()) {
            return Some(format!("{flag} and {} both name port {}: choose another for one", twin.flag, address.port()));
        }
        // Held together until here, so that a port is not found free twice.
        if let Err(error) = TcpListener::bind(address) {
            let free = SocketAddr::new(address.ip(), 0);
            return Some(match error.kind() {
                std::io::ErrorKind::AddrInUse => {
                    let holder = holder(address.port(), proc).unwrap_or_else(|| "another program".to_owned());
                    format!(
                        "{address} is taken by {holder}: stop it, or choose another address with {flag} (for example {flag} {free})"
                    )
                }
                std::io::ErrorKind::AddrNotAvailable => {
                    format!("this machine has no address {}: choose another with {flag}", address.ip())
                }
                std::io::ErrorKind::PermissionDenied => {
                    format!("port {} takes root: choose one above 1023 with {flag}", address.port())
                }
                _ => format!("failed to listen on {address}: {error}; choose another address with {flag}"),
            });
        }
    }
    None
}

/// An address on `ip` with a port that is free now.
///
/// # Errors
/// When there is none, or the machine has no such address.
pub fn free(ip: std::net::IpAddr) -> std::io::Result<SocketAddr> {
    TcpListener::bind((ip, 0))?.local_addr()
}

/// `name (pid N)` of the process that listens on a TCP port, where it can be seen.
fn holder(port: u16, proc: &Path) -> Option<String> {
    let inodes: Vec<u64> = ["net/tcp", "net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(proc.join(table)).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for entry in proc.read_dir().ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(fds) = entry.path().join("fd").read_dir() else { continue };
        let holds = fds.flatten().any(|fd| {
            std::fs::read_link(fd.path())
                .is_ok_and(|link| wanted.iter().any(|socket| link.as_os_str() == socket.as_str()))
        });
        if holds {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim_end()));
        }
    }
    None
}

/// The inodes of sockets in state LISTEN (`0A`, `include/net/tcp_states.h`) on `port`, from the text of
/// `/proc/net/tcp`: `sl local_address rem_address st ... uid timeout inode`.
fn listening(table: &str, port: u16) -> Vec<u64> {
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?.rsplit(':').next()?;
        let matches = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == "0A";
        fields.get(9)?.parse().ok().filter(|_| matches)
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(flag: &'static str, address: SocketAddr) -> Wanted {
        Wanted { flag, address }
    }

    #[test]
    fn a_taken_port_is_named_with_its_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fault = fault(&[wanted("--listen", address)], Path::new("/proc")).unwrap();
        assert!(fault.contains(&address.to_string()), "{fault}");
        assert!(fault.contains(&format!("(pid {})", std::process::id())), "{fault}");
        assert!(fault.contains("--listen 127.0.0.1:0"), "{fault}");
    }

    #[test]
    fn one_port_twice_is_refused_and_free_ones_are_not() {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        assert_eq!(fault(&[wanted("--listen", any), wanted("--agents-listen", any)], Path::new("/proc")), None);
        let same: SocketAddr = TcpListener::bind(any).unwrap().local_addr().unwrap();
        let fault = fault(&[wanted("--listen", same), wanted("--agents-listen", same)], Path::new("/proc")).unwrap();
        assert!(fault.contains("--agents-listen and --listen both name port"), "{fault}");
    }

    #[test]
    fn an_address_of_another_machine_is_said_so() {
        let fault = fault(&[wanted("--listen", ([192, 0, 2, 1], 7780).into())], Path::new("/proc")).unwrap();
        assert!(fault.contains("no address 192.0.2.1"), "{fault}");
    }
}
