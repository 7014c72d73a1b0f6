//! Writing to standard output from a thread of its own: a terminal that is held (Ctrl-S) or a pipe that nobody reads
//! must not hold the supervisor.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Frames beyond the one that is being written and the next are of no use: a newer one says it all. Plain lines come
/// every ten seconds.
const CAPACITY: usize = 16;

/// How long the last words may take before we go without them.
const GRACE: Duration = Duration::from_millis(500);

/// Alternate screen, cursor hidden, long lines cut instead of wrapped; and back (xterm's `ctlseqs`, modes 1049, 25, 7).
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

#[derive(Debug)]
enum Message {
    Text(String),
    Complaint(String),
    Frame(Vec<String>),
    Enter,
    Leave,
}

/// Standard output.
#[derive(Debug)]
pub struct Screen {
    sender: Option<SyncSender<Message>>,
    ended: Receiver<()>,
    entered: bool,
    left_out: u64,
}

impl Screen {
    /// Starts the writer.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start() -> std::io::Result<Self> {
        let (sender, messages) = sync_channel(CAPACITY);
        let (end, ended) = sync_channel(1);
        std::thread::Builder::new().name("screen".to_owned()).spawn(move || {
            write_all(&messages);
            // The receiver may have stopped waiting.
            let _ = end.try_send(());
        })?;
        Ok(Self { sender: Some(sender), ended, entered: false, left_out: 0 })
    }

    /// Prints lines that stay.
    pub fn print(&mut self, text: String) {
        if self.left_out > 0 {
            let note =
                format!("({} earlier left out: nobody read them)", crate::show::units::of(self.left_out, "message"));
            if self.send(Message::Text(note)) {
                self.left_out = 0;
            }
        }
        if !self.send(Message::Text(text)) {
            self.left_out += 1;
        }
    }

    /// Prints a line on standard error.
    pub fn complain(&mut self, text: String) {
        if !self.send(Message::Complaint(text)) {
            self.left_out += 1;
        }
    }

    /// Shows a frame in place of the one before, on a screen of its own.
    pub fn show(&mut self, frame: Vec<String>) {
        if !self.entered {
            self.entered = self.send(Message::Enter);
        }
        self.send(Message::Frame(frame));
    }

    /// Gives the terminal back as it was. Should nobody take that now, the writer does it at its end.
    pub fn leave(&mut self) {
        if std::mem::take(&mut self.entered) {
            self.send(Message::Leave);
        }
    }

    fn send(&mut self, message: Message) -> bool {
        self.sender.as_ref().is_some_and(|sender| sender.try_send(message).is_ok())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
        self.sender = None;
        // A terminal that is held does not hold us.
        let _ = self.ended.recv_timeout(GRACE);
    }
}

fn write_all(messages: &Receiver<Message>) {
    let mut out = std::io::stdout();
    let mut entered = false;
    // Whoever closed standard output wants no more of it; the supervisor goes on, and still complains elsewhere.
    let mut write = |text: &str| drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    for message in messages {
        match message {
            Message::Text(text) => write(&(text + "\n")),
            Message::Complaint(text) => {
                // A closed standard error leaves nobody to tell.
                let _ = std::io::stderr().write_all(format!("weir: {text}\n").as_bytes());
            }
            Message::Enter => {
                entered = true;
                write(ENTER);
            }
            Message::Leave => {
                entered = false;
                write(LEAVE);
            }
            Message::Frame(lines) => write(&draw(&lines)),
        }
    }
    if entered {
        write(LEAVE);
    }
}

/// The frame from the top left, each line cleared to its end, and all below: nothing flickers, nothing stays.
fn draw(lines: &[String]) -> String {
    let mut text = String::from("\x1b[H");
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            text.push_str("\r\n");
        }
        text.push_str(line);
        text.push_str("\x1b[K");
    }
    text.push_str("\x1b[J");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_clears_what_was_there() {
        assert_eq!(draw(&["a".into(), "b".into()]), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
    }
}
