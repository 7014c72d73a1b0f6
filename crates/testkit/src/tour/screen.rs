//! A screen of `weir top`, as a terminal of 80 by 24 shows it.

use super::watch::now;
use crate::process::binary;
use anyhow::{Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const ROWS: NonZero<u16> = NonZero::new(24).expect("not zero");
const COLUMNS: NonZero<u16> = NonZero::new(80).expect("not zero");
/// A question on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Killed and waited for at the latest when this goes.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `weir top` shows of the server at `address` once `shown` is on the screen and, after that, `keys` were typed and
/// all of `wanted` is.
///
/// # Errors
/// When it cannot be started or does not show that within a minute.
pub(super) fn top(address: &str, shown: &str, keys: &str, wanted: &[&str]) -> Result<String> {
    let size = Winsize { ws_row: ROWS.get(), ws_col: COLUMNS.get(), ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None)?;
    let (mut master, slave) = (File::from(pty.master), File::from(pty.slave));
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(binary("weir")?).args(["top", "--server", address]);
    command.env("TERM", "xterm-256color").env("TZ", "UTC");
    command.stdin(Stdio::from(slave.try_clone()?)).stdout(Stdio::from(slave.try_clone()?)).stderr(Stdio::from(slave));
    let running = Running(command.spawn()?);
    drop(command);
    let mut screen = vt100::Parser::new(ROWS, COLUMNS, 0);
    let mut bytes = [0; 4096];
    let mut see = |master: &mut File, texts: &[&str]| -> Result<String> {
        let began = now();
        loop {
            let contents = screen.screen().contents();
            if texts.iter().all(|text| contents.contains(text)) {
                return Ok(contents);
            }
            if began.elapsed() > PATIENCE {
                bail!("weir top did not show {texts:?} but\n{contents}");
            }
            let mut ready = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::from(500u16))? > 0 {
                let count = master.read(&mut bytes)?;
                screen.process(&bytes[..count]);
            }
        }
    };
    see(&mut master, &[shown])?;
    master.write_all(keys.as_bytes())?;
    let seen = see(&mut master, wanted)?;
    drop(running);
    Ok(seen)
}
