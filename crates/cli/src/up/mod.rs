//! `weir up`: tracer, agent and server on this machine, supervised.
//!
//! This file prepares: rights, folder, ports, which tracer. [`watch`] is the loop, [`supervise`] decides in it, [`parts`]
//! and [`process`] start and await. It all runs on one thread (the kernel ties the children's life to the thread that
//! started them), and everything that could hold it lies elsewhere: the parts write their [`logs`] themselves, the
//! [`screen`] has a thread, and [`look`] asks the HTTP API as everybody does.
//!
//! ```text
//! signals, exits, ticks ─▶ Supervisor::step ─▶ start, SIGTERM, SIGKILL
//! server.json, socket ───▶       │
//! GET /api/v1/edges ─(1)─▶ Scene ─▶ Screen ─(16)─▶ standard output
//! ```

pub mod account;
pub mod folder;
pub mod logs;
pub mod look;
pub mod names;
pub mod parts;
pub mod ports;
pub mod process;
pub mod screen;
pub mod supervise;
pub mod view;
pub mod watch;

use crate::args::{Feed, UpArgs};
use crate::exit::{Failure, Verdict};
use account::Rights;
use folder::{Folder, Running};
use parts::Recipe;
use ports::Wanted;
use std::path::{Path, PathBuf};
use std::time::Duration;
use supervise::Part;
use tokio::time::Instant;
use watch::{Signals, Up};

/// The parts of a `weir up` that was killed end within the time that stopping takes.
const LEFTOVERS: Duration = Duration::from_secs(6);

/// The system's tracer, where one runs.
pub const SYSTEM_SOCKET: &str = "/run/weir/tracer.sock";

/// Runs until Ctrl-C.
///
/// # Errors
/// [`Failure`]: wrong flags; the folder or a port is taken; server or agent cannot be run at all.
pub fn run(args: &UpArgs) -> Result<Verdict, Failure> {
    let rights = Rights::find(args.user.as_deref())?;
    check_exposure(args)?;
    check_token(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(anyhow::Error::new(error).context("failed to start the runtime")))?;
    runtime.block_on(up(args, &rights))
}

/// A listener beyond loopback takes a token, or the word that none is wanted.
fn check_exposure(args: &UpArgs) -> Result<(), Failure> {
    if args.token_file.is_some() || args.insecure {
        return Ok(());
    }
    for (flag, address) in [("--listen", args.listen), ("--agents-listen", args.agents_listen)] {
        if !address.ip().to_canonical().is_loopback() {
            return Err(Failure::Usage(format!(
                "{flag} {address} is reachable from other machines: pass --token-file FILE, or --insecure to let anyone read and write"
            )));
        }
    }
    Ok(())
}

/// The parts refuse a weak token; better now than from each of them.
fn check_token(args: &UpArgs) -> Result<(), Failure> {
    /// As the server has it.
    const TOKEN_LEAST: usize = 16;
    let Some(file) = &args.token_file else { return Ok(()) };
    let wrong = |what: String| Failure::Usage(format!("the token file {} {what}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let token = text.trim();
    if token.len() < TOKEN_LEAST || token.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(wrong(format!(
            "must hold at least {TOKEN_LEAST} printable characters; make one with `openssl rand -hex 32`"
        )));
    }
    Ok(())
}

/// Where the rows come from.
#[derive(Debug)]
pub struct Source {
    /// The tracer's socket.
    pub socket: PathBuf,
    /// Whether the tracer is ours to start.
    pub ours: bool,
    /// What to tell about it at the start.
    pub note: Option<String>,
}

async fn up(args: &UpArgs, rights: &Rights) -> Result<Verdict, Failure> {
    let mut signals =
        Signals::new().map_err(|error| anyhow::Error::new(error).context("failed to wait for signals"))?;
    let data = args.data.clone().unwrap_or_else(|| folder::default_data(rights.is_root()));
    let folder = Folder::open(&data, rights)?;
    leftovers_end(folder.data()).await;
    let wanted = [
        Wanted { flag: "--listen", address: args.listen },
        Wanted { flag: "--agents-listen", address: args.agents_listen },
        Wanted { flag: "--metrics-listen", address: args.metrics_listen },
    ];
    if let Some(fault) = ports::fault(&wanted, Path::new("/proc")) {
        return Err(Failure::Failed(anyhow::anyhow!(fault)));
    }
    let source = source(args, rights, &folder);
    let token_file = match &args.token_file {
        Some(file) => Some(folder.token_for_parts(file, rights)?),
        None => None,
    };
    let recipe = Recipe { args, folder: &folder, rights, feed: source.socket.clone(), token_file };
    let mut up = Up::new(recipe, &source)?;
    up.introduce(&source);
    let ended = up.watch(&mut signals).await;
    let verdict = up.conclude(ended);
    folder.retract();
    verdict
}

/// Which tracer is read: the named one, our own where it may trace, the system's where one answers, else our own
/// without eBPF.
fn source(args: &UpArgs, rights: &Rights, folder: &Folder) -> Source {
    if let Some(Feed(path)) = &args.feed {
        let socket = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        return Source { socket, ours: false, note: None };
    }
    let own = folder.socket();
    if rights.is_root() {
        return Source { socket: own, ours: true, note: None };
    }
    let program = Recipe::program(Part::Tracer).ok();
    if program.as_deref().is_some_and(parts::may_trace) {
        return Source { socket: own, ours: true, note: None };
    }
    let system = PathBuf::from(SYSTEM_SOCKET);
    if std::os::unix::net::UnixStream::connect(&system).is_ok() {
        let note = format!("not root: reading the tracer that runs at {SYSTEM_SOCKET}");
        return Source { socket: system, ours: false, note: Some(note) };
    }
    let note = format!(
        "not root: TCP of this network namespace, and the names of your own processes; for all of it {}",
        parts::how_to_trace(program.as_deref())
    );
    Source { socket: own, ours: true, note: Some(note) }
}

/// Waits until the parts of a `weir up` that was killed on this folder have ended: they hold its ports and folders.
async fn leftovers_end(data: &Path) {
    let Some(before) = Running::read(data) else { return };
    let deadline = Instant::now() + LEFTOVERS;
    // `PID (comm) STATE`: one that has ended and waits for its parent (Z) holds nothing.
    let lives = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.split_once(" (weir").is_some_and(|(_, rest)| !rest.contains(") Z"))
    };
    while before.parts.iter().filter_map(|part| part.pid).any(lives) && Instant::now() < deadline {
        tokio::time::sleep(LEFTOVERS / 100).await;
    }
}
