//! Real traffic with its truth, stand-ins for what a test cannot have, and weir itself as a person starts it.
//!
//! - [`traffic`]: exchanges over real sockets by real processes, each of which writes down what it sent and got.
//! - [`played`]: those processes, and what they have told so far.
//! - [`weir`]: `weir up` in a folder of its own, with its parts' pids and its answers.
//! - [`answers`]: what a server answers, through the command line.
//! - [`cluster`]: nodes, pods and Services as network namespaces, cgroups and DNAT rules on this kernel.
//! - [`thread_netns`]: network namespaces that a thread makes for itself.
//! - [`engines`]: real container engines, each in a folder of its own.
//! - [`feed`]: a stand-in for somebody else's tracer, well-behaved or not.
//! - [`load`]: the same exchange again and again, counted and timed.
//! - [`crowd`]: many agents' deliveries to one real server, what they cost it, and whether all of it arrived.
//! - [`overhead`]: what weir costs those whom it watches.
//! - [`shop`]: the processes that the demo's cluster runs.
//! - [`matrix`]: every kind of traffic and every path, played while weir watches.
//! - [`torture`]: real agents and a real server under every fault, held against the truth.
//! - [`checker`]: compares what was really exchanged with what weir says.
//!
//! Only tests and the demo depend on this crate.

pub mod answers;
pub mod checker;
pub mod cluster;
pub mod crowd;
pub mod engines;
pub mod feed;
pub mod load;
pub mod matrix;
pub mod overhead;
pub mod played;
pub mod process;
pub mod shop;
pub mod system_probe;
pub mod thread_netns;
pub mod torture;
pub mod tour;
pub mod traffic;
pub mod weir;

/// Whether a test that needs root may run. Prints why it is skipped, or panics where skips are forbidden
/// (`WEIR_FORBID_SKIPS=1`, as CI sets it).
///
/// # Panics
/// When not root and skips are forbidden.
pub fn is_root_or_skip(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let forbidden = std::env::var_os("WEIR_FORBID_SKIPS").is_some_and(|value| value == "1");
    assert!(!forbidden, "{test} needs root, and skips are forbidden here");
    println!("SKIP {test}: needs root for eBPF");
    false
}
