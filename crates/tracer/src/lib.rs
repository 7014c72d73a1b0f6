//! eBPF, a folder a probe; the feed's server. The only crate with kernel code, and the only privileged program.
//!
//! The programs in the kernel count; this process hands their counts on over a unix socket and keeps nothing that
//! matters in its memory. [`probes`] loads the programs, [`engine`] reads their maps and writes what ended into the
//! [`journal`], [`server`] serves the feed. The tracer never knows what a pod is.

pub mod args;
pub mod clients;
pub mod engine;
pub mod journal;
pub mod kernel;
pub mod losses;
pub mod places;
pub mod preflight;
pub mod probes;
pub mod processes;
pub mod rows;
pub mod server;
pub mod socket;

pub use args::Args;

use anyhow::Context;
use engine::{COMMANDS, Engine, Run, Settings};
use journal::Journal;
use places::Places;
use probes::{Descriptors, ProbeReport, ProbeState};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use weir_daemon::clock::{Clock, SystemClock};
use weir_daemon::tasks::Tasks;

/// From the signal to the end: replies under way get a second, then everything is closed.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// Traces and serves until `shutdown`.
///
/// # Errors
/// When something that is needed is missing, the socket is taken, or the kernel refuses the programs; the text says
/// what to do.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    preflight::check()?;
    let clock = SystemClock::new();
    let state = args.state_dir();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&state)
        .with_context(|| format!("failed to make the state folder {}", state.display()))?;
    let (listener, served) = socket::bind(&args.socket, args.socket_group.as_deref())?;
    let listener = tokio::net::UnixListener::from_std(listener).context("failed to serve the socket")?;

    let boot_id = read_boot_id()?;
    let mut descriptors = Descriptors::new();
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let cgroup_root = places::cgroup2_root(&mountinfo);
    probes::log_libbpf();
    let mut probes = vec![probes::tcp::load(&mut descriptors)?];
    probes.push(if args.no_udp {
        let state = ProbeState::Disabled("--no-udp".to_owned());
        ProbeReport { name: probes::udp::NAME.to_owned(), state, links: Vec::new() }
    } else {
        probes::udp::load(&mut descriptors, cgroup_root.as_deref())
    });
    let run = Run { id: random()?, boot_id: boot_id.clone(), takeovers: 0 };
    report(&probes, &run);
    // Microseconds since boot: cursors of a later run of the same boot are higher than any of an earlier one, so that a
    // client's old cursor is not taken for one of this run.
    let first = clock.monotonic().0 / 1_000 + 1;
    let journal = Journal::open(&state.join("closed.journal"), run.id, first)?;
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = Places::new(places::cgroup2_root(&mountinfo), "/proc".into());
    let settings = Settings {
        backfill_interval: args.backfill_interval,
        udp_idle: args.udp_idle,
        clients_file: state.join("clients.json"),
    };
    let (commands, inbox) = std::sync::mpsc::sync_channel(COMMANDS);
    let engine = Engine::new(run, descriptors, probes, journal, places, settings, clock)?;
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || engine.run(&inbox))
        .context("failed to start the engine's thread")?;

    let feed = server::Feed::new(commands, &boot_id);
    tracing::info!(socket = %args.socket.display(), "serving the feed");
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.spawn("feed server", server::serve(listener, feed, shutdown));
    let outcome = tasks.run(STOP_GRACE).await;
    drop(served);
    // The server's end dropped the last sender of commands.
    let stopped = tokio::task::spawn_blocking(move || thread.join()).await?;
    outcome?;
    stopped.map_err(|_panic| anyhow::anyhow!("the engine's thread panicked"))
}

fn report(probes: &[ProbeReport], run: &Run) {
    for ProbeReport { name, state, .. } in probes {
        match state {
            ProbeState::Running => tracing::info!(probe = %name, "running"),
            ProbeState::Partly(reason) => tracing::warn!(probe = %name, %reason, "running in part"),
            ProbeState::Disabled(reason) => tracing::info!(probe = %name, %reason, "disabled"),
            ProbeState::Unsupported(reason) => tracing::warn!(probe = %name, %reason, "unsupported"),
            ProbeState::Failed(reason) => tracing::error!(probe = %name, %reason, "failed"),
        }
    }
    tracing::info!(run = format_args!("{:016x}", run.id), takeovers = run.takeovers, "tracing");
}

fn read_boot_id() -> anyhow::Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("failed to draw a run id: {error}"))?;
    Ok(u64::from_le_bytes(bytes))
}
