//! Where a password comes from: an option, a file, the terminal, or standard input.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Failure;

/// Options that name a password.
#[derive(Args)]
pub(super) struct PasswordArgs {
    /// The password. Other users of this machine can see it while the command runs.
    #[arg(long, conflicts_with = "password_file")]
    password: Option<String>,
    /// File whose first line is the password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl std::fmt::Debug for PasswordArgs {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordArgs").field("password_file", &self.password_file).finish_non_exhaustive()
    }
}

impl PasswordArgs {
    /// The password of `user`.
    pub(super) fn read(&self, user: &str) -> Result<String, Failure> {
        let password = match (&self.password, &self.password_file) {
            (Some(password), _) => password.clone(),
            (None, Some(path)) => {
                let cannot = |error| Failure::Misused(format!("cannot read {}: {error}", path.display()));
                first_line(&mut std::fs::File::open(path).map_err(cannot)?).map_err(cannot)?
            }
            (None, None) => {
                let cannot = |error: io::Error| match error.kind() {
                    io::ErrorKind::Interrupted => Failure::Interrupted,
                    _ => Failure::Failed(format!("cannot read the password: {error}")),
                };
                if io::stdin().is_terminal() {
                    let first = ask(&format!("Password of {user}: ")).map_err(cannot)?;
                    let second = ask("The same again: ").map_err(cannot)?;
                    if first != second {
                        return Err(Failure::Failed(
                            "the two passwords differ; nothing is changed".to_owned(),
                        ));
                    }
                    first
                } else {
                    first_line(&mut io::stdin().lock()).map_err(cannot)?
                }
            }
        };
        check(&password).map_err(|why| Failure::Misused(why.to_owned()))?;
        Ok(password)
    }
}

/// Whether a text may be a password.
pub(super) fn check(password: &str) -> Result<(), &'static str> {
    match password.len() {
        0 => Err("a password is expected, found nothing"),
        1..=LEN_MAX => Ok(()),
        _ => Err("a password of at most 256 bytes is expected, found a longer one"),
    }
}

/// The first line, without its end.
fn first_line(from: &mut impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    // Not much is read, and nothing beyond the line is taken from whoever reads on.
    while bytes.len() <= LEN_MAX + 1 && from.read(&mut byte)? == 1 && byte[0] != b'\n' {
        bytes.push(byte[0]);
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is no UTF-8 text"))
}

/// Asks at the terminal, without showing what is typed. A signal that would end the program ends the question as
/// [`io::ErrorKind::Interrupted`], when the terminal is as it was.
fn ask(question: &str) -> io::Result<String> {
    let (signals, signalled) = UnixStream::pair()?;
    let mut registered = Vec::new();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        registered.push(signal_hook::low_level::pipe::register(signal, signals.try_clone()?)?);
    }
    let silence = Silence::begin()?;
    eprint!("{question}");
    io::stderr().flush()?;
    let line = first_line(&mut Terminal { signalled });
    drop(silence);
    eprintln!();
    for signal in registered {
        signal_hook::low_level::unregister(signal);
    }
    line
}

/// Standard input, whose reading a signal ends. (Signals do not interrupt the reading itself: their handlers have it go on.)
struct Terminal {
    signalled: UnixStream,
}

impl Read for Terminal {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        let mut fds = [
            PollFd::new(&self.signalled, PollFlags::IN),
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
        ];
        loop {
            match poll(&mut fds, None) {
                Ok(_) if !fds[0].revents().is_empty() => return Err(io::ErrorKind::Interrupted.into()),
                Ok(_) => return Ok(rustix::io::read(stdin.as_fd(), &mut *buf)?),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The terminal shows nothing until this is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Longest password, in bytes.
const LEN_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line() {
        let line = |text: &[u8]| first_line(&mut &*text).ok();
        assert_eq!(line(b"secret\nmore").as_deref(), Some("secret"));
        assert_eq!(line(b" with spaces \r\n").as_deref(), Some(" with spaces "));
        assert_eq!(line(b"no end").as_deref(), Some("no end"));
        assert_eq!(line(b"\xff\n"), None);
        let mut rest = &b"a\nb"[..];
        first_line(&mut rest).unwrap();
        assert_eq!(rest, b"b");
        let long = vec![b'x'; 10_000];
        assert!(check(&line(&long).unwrap()).is_err() && check("").is_err() && check("x").is_ok());
    }

    #[test]
    fn it_is_not_shown() {
        let args = PasswordArgs { password: Some("secret".to_owned()), password_file: None };
        assert!(!format!("{args:?}").contains("secret"));
    }
}
