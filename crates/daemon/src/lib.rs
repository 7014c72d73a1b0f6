//! What the three daemons share. A `main` is synchronous: [`config::parse`], [`logging::init`], build the runtime,
//! then `run(config, listener, shutdown)` with the token of [`shutdown::on_signals`].

pub mod capabilities;
pub mod clock;
pub mod config;
pub mod failpoint;
pub mod logging;
pub mod shutdown;
pub mod size;
pub mod tasks;
