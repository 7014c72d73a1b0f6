//! The kernel by raw file descriptors: what libbpf-rs offers only through an object that it loaded itself, but a tracer
//! needs that took its descriptors over from the keeper. The only unsafe code of weir is here.

pub mod costs;
pub mod netlink;
pub mod rights;
pub mod ring;
pub mod sys;
