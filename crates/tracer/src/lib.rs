//! eBPF, a folder a probe; the feed's server. The only crate with kernel code, and the only privileged program.
//!
//! The programs in the kernel count; this process hands their counts on over a unix socket and keeps nothing that
//! matters in its memory. [`probes`] loads the programs, [`ebpf`] reads their maps (where that is not to be had,
//! [`fallback`] asks the kernel for what it tells anybody), [`conntrack`] tells how the node translates connections,
//! [`engine`] writes what ended into the [`journal`], [`server`] serves the feed, and [`keeper`] holds it all together
//! when this process is killed. The
//! tracer never knows what a pod is.

pub mod args;
pub mod clients;
pub mod conntrack;
pub mod dns;
pub mod ebpf;
pub mod engine;
pub mod fallback;
pub mod journal;
pub mod keeper;
pub mod kernel;
pub mod ledger;
pub mod losses;
pub mod places;
pub mod preflight;
pub mod probes;
pub mod processes;
pub mod rows;
pub mod scope;
pub mod server;
pub mod socket;
pub mod source;
pub mod start;

pub use args::Args;

use anyhow::Context;
use conntrack::{Conntrack, Switch};
use engine::{COMMANDS, Engine, Settings};
use journal::Journal;
use ledger::Ledger;
use places::Places;
use std::path::Path;
use std::sync::Arc;
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
    let clock = SystemClock::new();
    let folder = args.state_dir();
    let (listener, served) = socket::bind(&args.socket, args.socket_group.as_deref())?;
    let listener = tokio::net::UnixListener::from_std(listener).context("failed to serve the socket")?;
    let _state = start::hold_state(&folder)?;

    let boot_id = read_boot_id()?;
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let cgroup_root = places::cgroup2_root(&mountinfo);
    let setup = args.setup(cgroup_root.as_deref())?;
    let scope = setup.scope.clone();
    let start::Begun { run, source, made, custody } =
        start::begin(&args, setup, &folder, &boot_id, cgroup_root.as_deref(), clock.monotonic().0)?;
    // Microseconds since boot: cursors of a later run of the same boot are higher than any of an earlier one, so that a
    // client's old cursor is not taken for one of this run.
    let first = clock.monotonic().0 / 1_000 + 1;
    let journal = Journal::open(&folder.join("closed.journal"), run.journal, first)?
        .with_rows_max(args.sizes.journal_rows_max.unwrap_or(journal::ROWS_MAX));
    let settings = Settings {
        backfill_interval: args.backfill_interval,
        udp_idle: args.udp_idle,
        clients_file: folder.join("clients.json"),
        keeper_restarts: custody.as_ref().map(keeper::custody::Custody::restarts).unwrap_or_default(),
        client_baselines_max: args.sizes.client_baselines_max.unwrap_or(clients::BASELINES_MAX),
        scope: scope.as_ref().map(|scope| scope.folder.display().to_string()),
    };
    let (commands, inbox) = std::sync::mpsc::sync_channel(COMMANDS);
    let cgroups = std::fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let places = Places::new(places::hierarchies(&mountinfo, &cgroups), made, "/proc".into());
    let switch = if args.no_conntrack { Switch::Off } else { Switch::On };
    let conntrack = Conntrack::new(switch, Arc::new(SystemClock::new()))
        .with_asks_max(args.sizes.conntrack_asks_max.unwrap_or(usize::MAX));
    let engine = Engine::new(run, source, Ledger::new(journal, places, conntrack), settings, clock);
    // Dropped at the thread's end, however that comes.
    let (alive, ended) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            let _alive = alive;
            engine.run(&inbox);
        })
        .context("failed to start the engine's thread")?;

    let feed = server::Feed::new(commands, &boot_id, scope);
    tracing::info!(socket = %args.socket.display(), "serving the feed");
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.spawn("engine", async move {
        let _ = ended.await;
        Ok(())
    });
    tasks.spawn("feed server", server::serve(listener, feed, shutdown));
    let outcome = tasks.run(STOP_GRACE).await;
    drop(served);
    // The server's end dropped the last sender of commands, so the engine ends, and then the keeper may go.
    let stopped = tokio::task::spawn_blocking(move || {
        let engine = thread.join();
        if let Some(custody) = custody {
            custody.end();
        }
        engine
    });
    let stopped = stopped.await?;
    outcome?;
    stopped.map_err(|_panic| anyhow::anyhow!("the engine's thread panicked"))
}

fn read_boot_id() -> anyhow::Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(text.trim().to_owned())
}
