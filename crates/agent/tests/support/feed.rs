//! A feed on a unix socket: a closure answers every request.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// An answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// 200 with this body.
    Body(Vec<u8>),
    /// 200 that announces this body, of which half comes.
    Half(Vec<u8>),
    /// 200 without a length, of so many bytes of rows.
    Endless(u64),
    /// Another status.
    Status(u16),
    /// None, ever.
    Never,
}

type Handler = Box<dyn FnMut(&str) -> Answer + Send>;

/// A running feed; ends when dropped.
pub struct Feed {
    path: PathBuf,
    handler: Arc<Mutex<Handler>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Feed {
    /// Serves `handler`, which is given each request's target.
    pub fn serve(path: &Path, handler: impl FnMut(&str) -> Answer + Send + 'static) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let handler: Arc<Mutex<Handler>> = Arc::new(Mutex::new(Box::new(handler)));
        let stop = Arc::new(AtomicBool::new(false));
        let (handle, stopped) = (Arc::clone(&handler), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut workers = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (handle, stopped) = (Arc::clone(&handle), Arc::clone(&stopped));
                workers.push(std::thread::spawn(move || {
                    // An agent that hangs up is part of what is tested.
                    let _ = answer(stream, &handle, &stopped);
                }));
            }
            for worker in workers {
                let _ = worker.join();
            }
        });
        Self { path: path.into(), handler, stop, thread: Some(thread) }
    }

    /// Serves the same answer to every `/connections`, 404 to the rest.
    pub fn constant(path: &Path, answer: Answer) -> Self {
        Self::serve(path, move |target| connections_only(target, &answer))
    }

    /// From the next request on every `/connections` gets this.
    pub fn behave(&self, answer: Answer) {
        *self.handler.lock().unwrap() = Box::new(move |target| connections_only(target, &answer));
    }
}

fn connections_only(target: &str, answer: &Answer) -> Answer {
    if target.starts_with("/connections") { answer.clone() } else { Answer::Status(404) }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = UnixStream::connect(&self.path);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn answer(mut stream: UnixStream, handler: &Mutex<Handler>, stop: &AtomicBool) -> std::io::Result<()> {
    stream.set_read_timeout(Some(std::time::Duration::from_millis(200)))?;
    let mut request = Vec::new();
    let mut bytes = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&bytes[..count]),
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let target = request.split(' ').nth(1).unwrap_or("");
    let answer = (handler.lock().unwrap())(target);
    match answer {
        Answer::Body(body) => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
            stream.write_all(&body)
        }
        Answer::Half(body) => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
            stream.write_all(&body[..body.len() / 2])
        }
        Answer::Endless(bytes) => endless(&mut stream, bytes),
        Answer::Status(status) => {
            write!(stream, "HTTP/1.1 {status} Told\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        }
        Answer::Never => {
            // Until the agent hangs up, or the test ends.
            while !stop.load(Ordering::Relaxed) && !matches!(stream.read(&mut bytes), Ok(0)) {}
            Ok(())
        }
    }
}

fn endless(stream: &mut UnixStream, bytes: u64) -> std::io::Result<()> {
    use std::fmt::Write as _;
    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"connections\":[")?;
    let mut sent = 0;
    let mut number = 0u64;
    while sent < bytes {
        let mut block = String::new();
        for _ in 0..500 {
            let comma = if number == 0 { "" } else { "," };
            let _ = write!(
                block,
                "{comma}{{\"pid\":1,\"type\":0,\"net_ns\":1,\"source\":\"10.0.0.1\",\"dest\":\"10.{}.{}.{}\",\"sport\":{},\"dport\":80,\
                 \"monotonic_sent_bytes\":1,\"monotonic_recv_bytes\":1}}",
                number >> 16 & 255,
                number >> 8 & 255,
                number & 255,
                number & 0xffff,
            );
            number += 1;
        }
        stream.write_all(block.as_bytes())?;
        sent += block.len() as u64;
    }
    stream.write_all(b"]}")
}
