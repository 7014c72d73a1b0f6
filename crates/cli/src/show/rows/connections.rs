//! Connections, as their counters have them.

use super::{Row, Style};
use crate::show::csv::Field;
use crate::show::table::{Cell, Column};
use crate::show::terminal::Paint;
use crate::show::units;
use weir_wire::api::{ConnectionRow, Transaction};

/// `name[pid]`, as much of it as is known.
fn process(row: &Transaction) -> String {
    match (row.process.as_deref().unwrap_or_default(), row.pid) {
        ("", 0) => String::new(),
        ("", pid) => format!("[{pid}]"),
        (name, 0) => name.to_owned(),
        (name, pid) => format!("{name}[{pid}]"),
    }
}

/// The TCP state, or why it ended.
fn state(row: &Transaction) -> Cell {
    match row.close_reason.as_deref() {
        None => Cell::new(&row.state),
        Some("closed" | "disconnected") => Cell::new("closed").painted(Paint::Dim),
        Some(reason) => Cell::new(reason).painted(Paint::Warn),
    }
}

fn socket_address(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn remote(row: &Transaction) -> Cell {
    if row.other_peer {
        return Cell::new("(other peers)");
    }
    Cell::new(socket_address(&row.dest, row.dest_port))
}

impl Row for Transaction {
    const COLUMNS: &'static [Column] = &[
        Column::text("KEY", 20),
        Column::word("PROTO"),
        Column::text("NODE", 6).goes(7),
        Column::word("DIRECTION").goes(4),
        Column::number("SENT"),
        Column::number("RECV"),
        Column::number("BEFORE").goes(3),
        Column::number("RETR").goes(5),
        Column::word("STATE").goes(1),
        Column::text("PROCESS", 8).goes(2),
        Column::word("FIRST SEEN").goes(8),
        Column::word("LAST SEEN").goes(6),
    ];

    fn names() -> Vec<&'static str> {
        "key protocol node boot_id instance generation source dest source_port dest_port direction \
             direction_certainty monotonic_sent_bytes monotonic_recv_bytes monotonic_retransmits \
             bytes_before sent_bytes_before recv_bytes_before state close_reason errno pid process \
             container_id cgroup_path net_ns rtt_us connect_latency_us first_seen last_seen paired \
             other_peer translated_source translated_dest translated_source_port translated_dest_port"
            .split(' ')
            .collect()
    }

    fn cells(&self, style: &Style) -> Vec<Cell> {
        vec![
            Cell::new(&self.key),
            Cell::new(&self.protocol),
            Cell::new(&self.node),
            Cell::new(&self.direction),
            style.bytes(self.monotonic_sent_bytes),
            style.bytes(self.monotonic_recv_bytes),
            style.bytes(self.bytes_before),
            style.faults(self.monotonic_retransmits),
            state(self),
            Cell::new(process(self)),
            style.instant(&self.first_seen),
            style.instant(&self.last_seen),
        ]
    }

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::from(&self.key),
            Field::from(&self.protocol),
            Field::from(&self.node),
            Field::from(&self.boot_id),
            Field::from(&self.instance),
            self.generation.into(),
            Field::from(&self.source),
            Field::from(&self.dest),
            self.source_port.into(),
            self.dest_port.into(),
            Field::from(&self.direction),
            Field::from(&self.direction_certainty),
            self.monotonic_sent_bytes.into(),
            self.monotonic_recv_bytes.into(),
            self.monotonic_retransmits.into(),
            self.bytes_before.into(),
            self.sent_bytes_before.into(),
            self.recv_bytes_before.into(),
            Field::from(&self.state),
            Field::from(&self.close_reason),
            Field::from(&self.errno),
            self.pid.into(),
            Field::from(&self.process),
            Field::from(&self.container_id),
            Field::from(&self.cgroup_path),
            self.net_ns.into(),
            Field::from(&self.rtt_us),
            Field::from(&self.connect_latency_us),
            Field::from(&self.first_seen),
            Field::from(&self.last_seen),
            self.paired.into(),
            self.other_peer.into(),
            Field::from(&self.translated_source),
            Field::from(&self.translated_dest),
            Field::from(&self.translated_source_port),
            Field::from(&self.translated_dest_port),
        ]
    }
}

impl Row for ConnectionRow {
    const COLUMNS: &'static [Column] = &[
        Column::word("PROTO"),
        Column::text("LOCAL", 15),
        Column::word("").goes(5),
        Column::text("REMOTE", 15),
        Column::number("SENT"),
        Column::number("RECV"),
        Column::number("RETR").goes(4),
        Column::number("RTT").goes(6),
        Column::word("STATE").goes(2),
        Column::text("PROCESS", 8).goes(1),
        Column::text("NODE", 6).goes(7),
        Column::word("LAST SEEN").goes(3),
    ];

    fn names() -> Vec<&'static str> {
        let mut names = Transaction::names();
        names.extend(["sent_bytes", "recv_bytes", "retransmits"]);
        names
    }

    fn cells(&self, style: &Style) -> Vec<Cell> {
        let row = &self.transaction;
        let arrow = match row.direction.as_str() {
            "outgoing" => "->",
            "incoming" => "<-",
            _ => "--",
        };
        vec![
            Cell::new(&row.protocol),
            Cell::new(socket_address(&row.source, row.source_port)),
            Cell::new(arrow),
            remote(row),
            style.bytes(self.sent_bytes),
            style.bytes(self.recv_bytes),
            style.faults(self.retransmits),
            Cell::new(row.rtt_us.map(|rtt| units::micros(rtt.into())).unwrap_or_default()),
            state(row),
            Cell::new(process(row)),
            Cell::new(&row.node),
            style.instant(&row.last_seen),
        ]
    }

    fn fields(&self) -> Vec<Field> {
        let mut fields = self.transaction.fields();
        fields.extend([self.sent_bytes.into(), self.recv_bytes.into(), self.retransmits.into()]);
        fields
    }
}
