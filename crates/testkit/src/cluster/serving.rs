//! An HTTP server on a thread of this process, for the stand-ins and the gate: the listener may be in one network
//! namespace and the connections that the handlers make in another.

use super::place::Place;
use anyhow::{Context, Result};
use axum::Router;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

/// A running server; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Serving {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Serves `router` on `listener`. With `inside`, what the handlers connect to is looked for in that namespace.
    pub(crate) fn start(listener: TcpListener, inside: Option<Place>, router: Router) -> Result<Self> {
        Self::start_with(listener, inside, router, None)
    }

    /// The same, with TLS where there is a configuration for it.
    pub(crate) fn start_with(
        listener: TcpListener,
        inside: Option<Place>,
        router: Router,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let (stop, stopped) = oneshot::channel();
        let (started, outcome) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let runtime = inside.map_or(Ok(()), |place| place.move_thread()).and_then(|()| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.context("failed to start a runtime")
            });
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let _ = started.send(Ok(()));
            // Dropped with the runtime are connections that are still open, a watch's for example.
            runtime.block_on(async {
                let serve = async {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    match tls {
                        Some(config) => axum::serve(Secure { listener, acceptor: config.into() }, router).await,
                        None => axum::serve(listener, router).await,
                    }
                };
                tokio::select! {
                    _ = stopped => {}
                    ended = serve => if let Err(error) = ended {
                        eprintln!("a listener of the testkit's cluster ended: {error}");
                    }
                }
            });
        });
        outcome.recv().context("the server's thread did not start")??;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A listener whose connections are TLS; one that fails its handshake is dropped.
struct Secure {
    listener: tokio::net::TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Secure {
    type Io = TlsStream<tokio::net::TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, peer) = axum::serve::Listener::accept(&mut self.listener).await;
            match self.acceptor.accept(stream).await {
                Ok(stream) => return (stream, peer),
                Err(error) => eprintln!("a TLS handshake failed: {error}"),
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Listens in a namespace.
pub(crate) fn listen(place: &Place, address: SocketAddr) -> Result<TcpListener> {
    place.enter(|| TcpListener::bind(address).with_context(|| format!("failed to listen on {address}")))
}
