//! A tracer that runs as an ordinary user, with exactly the capabilities that are named.

use super::Tracer;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// `nobody`, on every distribution.
pub const NOBODY: u32 = 65_534;

/// Starts a tracer as `nobody` with `capabilities` (`bpf`, `net_admin`: as setpriv(1) names them) and no others.
pub fn start_as_nobody(capabilities: &[&str], args: &[&str]) -> Tracer {
    let temporary = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(temporary.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut tracer = start_as_nobody_in(temporary.path(), capabilities, args);
    tracer.temporary = Some(temporary);
    tracer
}

/// The same in a folder that stays.
pub fn start_as_nobody_in(folder: &Path, capabilities: &[&str], args: &[&str]) -> Tracer {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    // Where the tests were built, an ordinary user may have no business.
    let program = folder.join("weir-tracer");
    if !program.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_weir-tracer"), &program).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let given: Vec<String> = capabilities.iter().map(|name| format!("+{name}")).collect();
    let id = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    if given.is_empty() {
        command.arg("--inh-caps=-all");
    } else {
        command.arg(format!("--inh-caps=-all,{}", given.join(",")));
        command.arg(format!("--ambient-caps={}", given.join(",")));
    }
    command
        .arg(&program)
        .arg("--socket")
        .arg(folder.join("tracer.sock"))
        .args(args)
        .env("WEIR_KEEPER_GRACE", "10s")
        .env("NO_COLOR", "1")
        .stdin(std::process::Stdio::null())
        .stderr(log);
    Tracer::of(command.spawn().unwrap(), folder)
}
