//! eBPF, a folder a probe; the feed's server. The only crate with kernel code.
