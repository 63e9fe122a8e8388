//! [parent] The caller's terminal as a page that is drawn anew, with keys that come one by one.

use std::io::Write;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::signal::{Signal, raise};
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};

use crate::error::{Context, Result};
use crate::sys::fd::standard_stream;
use crate::sys::tty;

/// The alternate screen, without cursor (xterm's control sequences, which every terminal emulator has).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Gives the terminal back as it was when it is dropped.
#[derive(Debug)]
pub struct Screen {
    /// Of standard input, if that is a terminal.
    saved: Option<Termios>,
}

impl Screen {
    /// Takes the terminal that standard output is.
    pub fn open() -> Result<Self> {
        let screen = Self { saved: termios::tcgetattr(standard_stream(0)).ok() };
        screen.enter()?;
        Ok(screen)
    }

    fn enter(&self) -> Result<()> {
        if let Some(saved) = &self.saved {
            let mut raw = saved.clone();
            // Ctrl-C still is SIGINT.
            raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
            termios::tcsetattr(standard_stream(0), SetArg::TCSANOW, &raw).doing(|| "set up the terminal")?;
        }
        write(ENTER)
    }

    fn leave(&self) {
        // The terminal may be gone.
        if let Some(saved) = &self.saved {
            let _ = termios::tcsetattr(standard_stream(0), SetArg::TCSANOW, saved);
        }
        // As above.
        let _ = write(LEAVE);
    }

    /// Gives the terminal back and stops this process, until somebody lets it go on (Ctrl-Z, fg).
    pub fn suspend(&self) -> Result<()> {
        self.leave();
        raise(Signal::SIGSTOP).doing(|| "stop")?;
        self.enter()
    }

    /// Draws `lines`, as much of them as there is room for.
    pub fn draw(&self, lines: &[String]) -> Result<()> {
        let (height, width) = tty::window_size(standard_stream(1)).unwrap_or((0, 0));
        write(&page(lines, height, width))
    }

    /// Where keys come from, if they do.
    pub fn keys(&self) -> Option<BorrowedFd<'static>> {
        self.saved.as_ref().map(|_| standard_stream(0))
    }

    /// The keys that were pressed; `None` when the terminal is gone.
    pub fn read_keys(&self) -> Result<Option<Vec<u8>>> {
        let mut keys = vec![0; 64];
        match nix::unistd::read(standard_stream(0), &mut keys) {
            Ok(0) | Err(Errno::EIO) => Ok(None),
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(Some(vec![])),
            length => {
                keys.truncate(length.doing(|| "read the keys")?);
                Ok(Some(keys))
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

fn write(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).doing(|| "write to the terminal")
}

/// What puts `lines` on a page of this size, over what was there; a terminal that does not know its size says 0.
fn page(lines: &[String], height: u16, width: u16) -> String {
    let most = |size: u16| if size == 0 { usize::MAX } else { size.into() };
    let mut text = String::from("\x1b[H");
    for (i, line) in lines.iter().take(most(height)).enumerate() {
        if i > 0 {
            text.push_str("\r\n");
        }
        text.extend(line.chars().take(most(width)));
        text.push_str("\x1b[K");
    }
    text.push_str("\x1b[J");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_no_more_than_the_terminal_shows() {
        let lines: Vec<String> = ["one", "twö two", "three"].map(String::from).into();
        assert_eq!(page(&lines, 2, 3), "\x1b[Hone\x1b[K\r\ntwö\x1b[K\x1b[J");
        assert_eq!(page(&lines, 0, 0), "\x1b[Hone\x1b[K\r\ntwö two\x1b[K\r\nthree\x1b[K\x1b[J");
        assert_eq!(page(&[], 24, 80), "\x1b[H\x1b[J");
    }
}
