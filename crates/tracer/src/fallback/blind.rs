//! What the fallback cannot see, and why: told in `/status` and in every reply, and what a checker may expect of it.
//! Everything that is not in this list is as exact as with eBPF.

use weir_wire::feed::Blind;

/// Always.
pub const ALWAYS: [(&str, &str); 10] = [
    ("udp", "outside of eBPF the kernel keeps no byte counts of UDP: its flows are left out, not told as 0"),
    ("dns", "queries and their answers are read where eBPF sees datagrams, and nowhere else"),
    (
        "failed_connects",
        "a blocking connect that failed leaves nothing in its socket: such connections are not in the feed, and of those \
         that are the errno is unknown",
    ),
    (
        "discarded_totals",
        "the kernel clears a socket's counters when it is reset by SO_LINGER 0 or used again after AF_UNSPEC: such an end \
         has the totals that were seen last (totals_certainty last_seen), and is not told if it never was seen alive",
    ),
    (
        "mptcp",
        "of MPTCP the subflows' own bytes are told, which may be more than the application's by what it sent again; the kernel \
         may clear the counters of a subflow that was accepted before its end: its end is as that of a reset (discarded_totals)",
    ),
    (
        "opener_of_reset",
        "who opened a connection that began and was reset between two fetches is unknown (direction 0) where neither its \
         counters, nor a listener, nor the peer's own row on this machine say it",
    ),
    (
        "last_byte",
        "of a connection that ended by a reset, or whose peer answered our FIN before it could be looked at, the kernel's \
         count of received bytes may hold the peer's FIN: the row may then tell one byte too little (totals_certainty \
         recv_one_short), unless the peer's own row on this machine settles it. Where the kernel's table of TIME_WAIT is \
         full (TCPTimeWaitOverflow in /proc/net/netstat) the byte may be missing without a word",
    ),
    ("start", "when a connection began and how long its connect took are not kept by the kernel"),
    (
        "owner_of_short_lived",
        "the process that opened a connection which began and ended between two fetches is unknown (pid 0); the one that \
         accepted it is known where it alone holds a listener that a fetch has met. Processes are searched for at most a \
         twentieth of the time, so that with many of them several fetches may pass",
    ),
    (
        "hidden_namespaces",
        "network namespaces are found through processes and /run/netns every 2 seconds: what lives shorter, or is held \
         by a single thread or a descriptor alone, is not seen",
    ),
];

/// Only while it is so.
pub const OTHER_NAMESPACES: (&str, &str) = (
    "other_namespaces",
    "some network namespaces may not be looked at or entered, their connections are not in the feed: it takes \
     CAP_SYS_PTRACE to find those of other users' processes and CAP_SYS_ADMIN to enter them",
);
/// Only while it is so.
pub const OTHER_OWNERS: (&str, &str) = (
    "other_owners",
    "the descriptors of some processes may not be read, their connections have pid 0: it takes CAP_SYS_PTRACE and \
     CAP_DAC_READ_SEARCH to read those of other users",
);
/// Only while it is so.
pub const SHORT_LIVED: (&str, &str) = (
    "short_lived",
    "this kernel does not tell of destroyed sockets: what begins and ends between two fetches is not seen, and every end \
     has the totals that were seen last",
);

/// As the feed tells it.
pub fn tell((what, why): (&str, &str)) -> Blind {
    Blind { what: what.to_owned(), why: why.to_owned() }
}
