//! Descriptors over a unix socket (`SCM_RIGHTS`).

#![expect(unsafe_code, reason = "received descriptors come as numbers")]

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// The kernel's `SCM_MAX_FD`.
const RIGHTS_MAX: usize = 253;

/// Sends `bytes`, all of them, with `rights` beside the first.
pub fn send(stream: &UnixStream, bytes: &[u8], rights: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers: Vec<RawFd> = rights.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &control[..0] } else { &control[..] };
    let slices = [IoSlice::new(bytes)];
    let sent = sendmsg::<UnixAddr>(stream.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None)?;
    let mut rest = stream;
    io::Write::write_all(&mut rest, &bytes[sent..])
}

/// Fills `bytes`, and returns the descriptors that came beside the first of them.
pub fn receive(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<Vec<OwnedFd>> {
    let mut control = nix::cmsg_space!([RawFd; RIGHTS_MAX]);
    let (count, rights) = {
        let mut slices = [IoSliceMut::new(bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
        let mut rights = Vec::new();
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                // SAFETY: the kernel has just put these descriptors into our table for this message; nobody else knows
                // their numbers.
                rights.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        (message.bytes, rights)
    };
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut rest = stream;
    io::Read::read_exact(&mut rest, &mut bytes[count..])?;
    Ok(rights)
}
