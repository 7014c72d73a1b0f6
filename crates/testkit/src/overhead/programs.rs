//! The kernel's programs and what they have cost, by bpf(2).

#![expect(unsafe_code, reason = "bpf(2) has no wrapper outside of libbpf, which only the tracer links")]

use anyhow::{Context, Result};
use nix::libc;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const PROG_GET_NEXT_ID: libc::c_int = 11;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const ENABLE_STATS: libc::c_int = 32;

/// `struct bpf_prog_info` up to `run_cnt`, and where its fields lie.
const INFO_SIZE: usize = 208;
const INFO_NAME: usize = 64;
const INFO_NANOSECONDS: usize = 192;
const INFO_RUNS: usize = 200;
const NAME_LENGTH: usize = 16;

/// A loaded program.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Program {
    /// Its id.
    pub id: u32,
    /// Its name; the kernel keeps 15 bytes.
    pub name: String,
    /// How often it ran while the kernel counted.
    pub runs: u64,
    /// How long, nanoseconds.
    pub nanoseconds: u64,
}

/// While it lives, the kernel counts every program's runs and nanoseconds (about 20 ns a run).
#[derive(Debug)]
pub struct Counting(#[expect(dead_code, reason = "held so that it is closed at the end")] OwnedFd);

/// Switches the counting on.
///
/// # Errors
/// When not root, or on a kernel older than 5.8.
pub fn count() -> Result<Counting> {
    // BPF_STATS_RUN_TIME is 0.
    let mut attributes = [0_u32; 4];
    let fd = bpf(ENABLE_STATS, &mut attributes).context("failed to have the kernel count what programs cost")?;
    // SAFETY: the kernel just made it for us and nobody else knows it.
    Ok(Counting(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Every program whose name begins with `weir_`.
///
/// # Errors
/// When not root.
pub fn of_weir() -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    let mut id = 0;
    loop {
        let mut attributes = [id, 0, 0, 0];
        match bpf(PROG_GET_NEXT_ID, &mut attributes) {
            Ok(_) => id = attributes[1],
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error).context("failed to list the kernel's programs"),
        }
        match program(id) {
            Ok(program) if program.name.starts_with("weir_") => programs.push(program),
            Ok(_) => {}
            // It went away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("failed to look at a program"),
        }
    }
    Ok(programs)
}

/// The programs behind the links that a process holds.
///
/// # Errors
/// When it is gone.
pub fn of_process(pid: i32) -> Result<Vec<Program>> {
    let mut ids = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
        let lines = text.lines().filter_map(|line| line.strip_prefix("prog_id:"));
        ids.extend(lines.filter_map(|id| id.trim().parse::<u32>().ok()));
    }
    ids.into_iter().map(|id| program(id).with_context(|| format!("failed to look at program {id}"))).collect()
}

fn program(id: u32) -> io::Result<Program> {
    let fd = bpf(PROG_GET_FD_BY_ID, &mut [id, 0, 0, 0])?;
    // SAFETY: the kernel just made it for us and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = [0_u8; INFO_SIZE];
    let address = info.as_mut_ptr().expose_provenance() as u64;
    let mut attributes = [fd.as_raw_fd() as u32, INFO_SIZE as u32, address as u32, (address >> 32) as u32];
    if cfg!(target_endian = "big") {
        attributes.swap(2, 3);
    }
    bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    let number = |at: usize| info[at..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    let name = info[INFO_NAME..INFO_NAME + NAME_LENGTH].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Program {
        id,
        name: String::from_utf8_lossy(name).into_owned(),
        runs: number(INFO_RUNS),
        nanoseconds: number(INFO_NANOSECONDS),
    })
}

fn bpf(command: libc::c_int, attributes: &mut [u32; 4]) -> io::Result<RawFd> {
    // SAFETY: the kernel reads and writes at most the 16 bytes given, and for OBJ_GET_INFO_BY_FD the buffer named in them,
    // which `program` keeps alive and whose size it gives.
    let outcome =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), std::mem::size_of_val(attributes)) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(outcome as RawFd) }
}
