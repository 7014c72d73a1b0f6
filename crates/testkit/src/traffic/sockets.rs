//! What the kernel says of a socket, and options that have no safe wrapper.

use nix::libc;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `struct tcp_info` (`include/uapi/linux/tcp.h`, kernel 4.19 or newer): what is read of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcpInfo {
    /// `include/net/tcp_states.h`.
    pub(super) state: u8,
    /// Segments in flight.
    pub(super) unacked: u32,
    /// Payload accepted in order, and 1 for the peer's FIN.
    pub(super) bytes_received: u64,
    /// Payload sent, again and again.
    pub(super) bytes_sent: u64,
    /// Of that, not for the first time.
    pub(super) bytes_retrans: u64,
}

/// Reads `TCP_INFO`.
pub(super) fn tcp_info(socket: impl AsFd) -> io::Result<TcpInfo> {
    let mut bytes = [0_u8; 232];
    let mut length = bytes.len() as libc::socklen_t;
    #[expect(unsafe_code, reason = "getsockopt(2) of a structure that no crate has whole")]
    // SAFETY: the kernel writes at most `length` bytes into the buffer of that length.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < 216 {
        return Err(io::Error::other("this kernel's TCP_INFO has no tcpi_bytes_sent (4.19 or newer)"));
    }
    let long = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_ne_bytes);
    Ok(TcpInfo {
        state: bytes[0],
        unacked: bytes[24..28].try_into().map_or(0, u32::from_ne_bytes),
        bytes_received: long(128),
        bytes_sent: long(200),
        bytes_retrans: long(208),
    })
}

/// Bytes that arrived and were not read (`FIONREAD`).
pub(super) fn unread(socket: impl AsFd) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    #[expect(unsafe_code, reason = "ioctl(2) has no safe form")]
    // SAFETY: FIONREAD writes one int.
    let outcome = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if outcome == 0 { Ok(bytes as u64) } else { Err(io::Error::last_os_error()) }
}

/// Sets an option that is an int.
pub(super) fn set(socket: impl AsFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    #[expect(unsafe_code, reason = "setsockopt(2) of options that no crate names")]
    // SAFETY: the kernel reads one int of its own size.
    let outcome =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
