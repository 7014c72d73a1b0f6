//! Exchanges over real sockets, and the truth about them.
//!
//! The program `weir-traffic` runs these in processes of their own: a server (`serve`) with a port for each
//! [`Manner`], and a client ([`Script::play`]) that plays one [`Script`]. Both print a [`Truth`] line, as JSON, for
//! every connection (UDP: every peer of a socket) that has ended: what its own calls moved, and where they do not
//! decide, what the kernel said last. Nothing here knows weir.
//!
//! One room a kind: `streams` for what ends well, `endings` for what does not, `calls` for the many calls that
//! move bytes, `heirs` for sockets that change hands, `datagrams` and `dns` for UDP.

mod calls;
mod counted;
mod datagrams;
mod dns;
mod endings;
mod heirs;
mod serve;
mod sockets;
mod streams;
mod tell;
mod truth;

pub use calls::{Reading, Writing};
pub use dns::Question;
pub use endings::Answer;
pub use heirs::Closer;
pub use serve::{Listening, Manner, Offer, serve};
pub use truth::{Outcome, Protocol, Role, Truth, Word};

use anyhow::Result;
use std::net::SocketAddr;
use tell::Teller;

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum Script {
    /// Sends bytes and reads them back, then closes.
    Echo {
        /// How many bytes.
        #[arg(long)]
        bytes: u64,
        /// Which kind of socket.
        #[arg(long, value_enum, default_value_t)]
        over: Socket,
        /// The server's echo port.
        server: SocketAddr,
    },
    /// Sends bytes, closes its half, reads the 8 bytes of the answer.
    Upload {
        /// How many bytes.
        #[arg(long)]
        bytes: u64,
        /// By which call.
        #[arg(long, value_enum, default_value_t)]
        by: Writing,
        /// The server's sink port.
        server: SocketAddr,
    },
    /// Asks for bytes, reads them to the server's half-close, sends 1,000 more into the half-open connection.
    Download {
        /// How many bytes.
        #[arg(long)]
        bytes: u64,
        /// By which call.
        #[arg(long, value_enum, default_value_t)]
        by: Reading,
        /// The server's source port.
        server: SocketAddr,
    },
    /// Sends at a rate, reads all back.
    Paced {
        /// How many bytes.
        #[arg(long)]
        bytes: u64,
        /// Bytes a second.
        #[arg(long)]
        rate: u64,
        /// The server's echo port.
        server: SocketAddr,
    },
    /// Opens and closes connections as fast as it can, of 1 to 200 bytes each.
    Short {
        /// How many connections.
        #[arg(long)]
        connections: u64,
        /// The server's echo port.
        server: SocketAddr,
    },
    /// Keeps one connection and echoes for each line on standard input.
    Hold {
        /// How many bytes for each line.
        #[arg(long)]
        bytes: u64,
        /// The server's echo port.
        server: SocketAddr,
    },
    /// Mixed traffic until standard input ends.
    Churn {
        /// The server's echo port.
        server: SocketAddr,
    },
    /// Uses one socket for three connections, disconnected by `AF_UNSPEC` between them.
    Reuse {
        /// The server's echo port.
        server: SocketAddr,
    },
    /// Uses one four-tuple for connection after connection: bound to one port, each ended by a reset of its own.
    SameTuple {
        /// How many connections.
        #[arg(long)]
        connections: u64,
        /// The server's echo port.
        server: SocketAddr,
    },
    /// Sends 1,000 bytes and is reset.
    Reset {
        /// The server's reset port.
        server: SocketAddr,
    },
    /// Echoes, then resets the connection (SO_LINGER 0).
    Abort {
        /// How many bytes.
        #[arg(long)]
        bytes: u64,
        /// The server's echo port.
        server: SocketAddr,
    },
    /// Fills the connection to a server that does not read, then resets it with the rest still queued.
    AbortQueued {
        /// The server's deaf port.
        server: SocketAddr,
    },
    /// Sends 10,000 bytes of which the server reads 1,000 before it closes: a reset by unread data.
    Unread {
        /// The server's unread port.
        server: SocketAddr,
    },
    /// A process that is killed (`kill -9`) with its connection open.
    Killed {
        /// How many bytes it echoes before.
        #[arg(long)]
        bytes: u64,
        /// Whether it has read the answer.
        #[arg(long, value_enum)]
        answer: Answer,
        /// The server's echo port.
        server: SocketAddr,
    },
    /// The process that `killed` kills.
    #[command(hide = true)]
    Victim {
        /// How many bytes it echoes.
        #[arg(long)]
        bytes: u64,
        /// Whether it reads the answer.
        #[arg(long, value_enum)]
        answer: Answer,
        /// The server's echo port.
        server: SocketAddr,
    },
    /// Connects to a port where nobody listens.
    Refused {
        /// Where nobody listens.
        server: SocketAddr,
    },
    /// Connects to where nobody answers, with two SYNs.
    TimedOut {
        /// An address whose SYNs are dropped.
        server: SocketAddr,
    },
    /// A socket that is inherited over fork: the parent echoes, then the child.
    Forked {
        /// How many bytes each.
        #[arg(long)]
        bytes: u64,
        /// Who closes it.
        #[arg(long, value_enum)]
        closer: Closer,
        /// The server's echo port.
        server: SocketAddr,
    },
    /// The child of `forked`; the socket is its standard input.
    #[command(hide = true)]
    Heir {
        /// How many bytes it echoes.
        #[arg(long)]
        bytes: u64,
        /// What the parent has sent and received before.
        #[arg(long, default_value_t = 0)]
        before: u64,
        /// Who closes it.
        #[arg(long, value_enum)]
        closer: Closer,
    },
    /// A child of a prefork server; the listener is its standard input.
    #[command(hide = true)]
    Worker,
    /// Datagrams of different sizes from one unconnected socket to each server, each answered.
    Datagrams {
        /// How many to each.
        #[arg(long)]
        count: u64,
        /// The servers' datagram ports.
        servers: Vec<SocketAddr>,
    },
    /// The same from a connected socket for each server.
    Connected {
        /// How many to each.
        #[arg(long)]
        count: u64,
        /// The servers' datagram ports.
        servers: Vec<SocketAddr>,
    },
    /// Empty datagrams, each answered by an empty one.
    Empty {
        /// How many.
        #[arg(long)]
        count: u64,
        /// The server's datagram port.
        server: SocketAddr,
    },
    /// As many sockets as `count`, one datagram and its answer each: many peers of one server's socket.
    Peers {
        /// How many.
        #[arg(long)]
        count: u64,
        /// The server's datagram port.
        server: SocketAddr,
    },
    /// One call that the kernel cuts into eleven datagrams (UDP_SEGMENT), each answered.
    Segments {
        /// The server's datagram port.
        server: SocketAddr,
    },
    /// Datagrams of 1,000 bytes to a server that does not read in time.
    Flood {
        /// How many.
        #[arg(long)]
        count: u64,
        /// The server's slow datagram port.
        server: SocketAddr,
    },
    /// One datagram to a port that nobody has.
    Nobody {
        /// Where nobody listens.
        server: SocketAddr,
    },
    /// DNS questions from one socket each; names that end in `nx.test` do not exist, those in `slow.test` get no answer.
    Dns {
        /// The names asked for.
        #[arg(long, required = true)]
        name: Vec<String>,
        /// The server's DNS port.
        server: SocketAddr,
    },
}

/// Which kind of socket a client opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Socket {
    /// An ordinary one of the server address's family.
    #[default]
    Plain,
    /// An IPv6 socket to an IPv4 server, as `::ffff:a.b.c.d`.
    Mapped,
    /// Multipath TCP.
    Mptcp,
    /// TCP fast open: the first bytes go with the SYN where the server allows it.
    FastOpen,
}

impl Script {
    /// Plays it and prints the truth.
    ///
    /// # Errors
    /// When an exchange does not go as the script says.
    pub fn play(&self) -> Result<()> {
        let teller = Teller::new()?;
        match self {
            &Self::Echo { bytes, over, server } => streams::echo(server, bytes, over, &teller),
            &Self::Upload { bytes, by, server } => streams::upload(server, bytes, by, &teller),
            &Self::Download { bytes, by, server } => streams::download(server, bytes, by, &teller),
            &Self::Paced { bytes, rate, server } => streams::paced(server, bytes, rate, &teller),
            &Self::Short { connections, server } => streams::short(server, connections, &teller),
            &Self::Hold { bytes, server } => streams::hold(server, bytes, &teller),
            &Self::Churn { server } => streams::churn(server, &teller),
            &Self::Reuse { server } => endings::reuse(server, &teller),
            &Self::SameTuple { connections, server } => endings::same_tuple(server, connections, &teller),
            &Self::Reset { server } => endings::reset(server, &teller),
            &Self::Abort { bytes, server } => endings::abort(server, bytes, &teller),
            &Self::AbortQueued { server } => endings::abort_queued(server, &teller),
            &Self::Unread { server } => endings::unread(server, &teller),
            &Self::Killed { bytes, answer, server } => endings::killed(server, bytes, answer),
            &Self::Victim { bytes, answer, server } => endings::victim(server, bytes, answer, &teller),
            &Self::Refused { server } => endings::refused(server, &teller),
            &Self::TimedOut { server } => endings::timed_out(server, &teller),
            &Self::Forked { bytes, closer, server } => heirs::forked(server, bytes, closer, &teller),
            &Self::Heir { bytes, before, closer } => heirs::heir(bytes, before, closer),
            Self::Worker => heirs::worker(),
            Self::Datagrams { count, servers } => datagrams::unconnected(servers, *count, &teller),
            Self::Connected { count, servers } => datagrams::connected(servers, *count, &teller),
            &Self::Empty { count, server } => datagrams::empty(server, count, &teller),
            &Self::Peers { count, server } => datagrams::peers(server, count, &teller),
            &Self::Segments { server } => datagrams::segments(server, &teller),
            &Self::Flood { count, server } => datagrams::flood(server, count, &teller),
            &Self::Nobody { server } => datagrams::nobody(server, &teller),
            Self::Dns { name, server } => dns::ask(*server, name, &teller),
        }
    }
}
