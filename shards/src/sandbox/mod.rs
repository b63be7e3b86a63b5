//! What the server gives up before it reads its first packet: every file but its own (Landlock), and every system call that it
//! has no use for (seccomp). Whoever finds a way to run code of his in it gets no further than it.
//!
//! Both hold for the process until it ends and for all threads that are started from now on, so this is the last step before
//! the threads. They need no privilege and take the one to gain privileges away (`PR_SET_NO_NEW_PRIVS`).

use std::fmt;

use crate::settings::{SandboxMode, Settings};

mod calls;
mod files;

/// What was given up. It is to live as long as the process.
#[derive(Debug)]
pub struct Sandbox {
    mode: SandboxMode,
    files: Part,
    calls: Part,
    /// Rules for files of `/proc` hold as long as somebody has them open.
    _anchor: Option<std::fs::File>,
}

/// How far one half of the sandbox got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// All of it is in force.
    Full,
    /// An older kernel enforces some of it.
    Some,
    /// Nothing is, and this is why.
    None(String),
}

impl Sandbox {
    /// Gives up what a server with these `settings` does not need any more once its files and sockets are open. Only the thread
    /// that calls and those that it starts afterwards are kept from files; all are kept from system calls.
    ///
    /// # Errors
    /// Where the settings say that all of it is required and this kernel does not do all of it.
    pub fn enter(settings: &Settings) -> Result<Self, NotSandboxed> {
        let mode = settings.sandbox;
        if mode == SandboxMode::Off {
            let off = || Part::None("off".to_owned());
            return Ok(Self { mode, files: off(), calls: off(), _anchor: None });
        }
        let anchor = files::anchor();
        // System calls come last, for the calls that make a sandbox are not among those that are left.
        let files = files::confine(settings, anchor.as_ref());
        let calls = calls::confine();
        let sandbox = Self { mode, files, calls, _anchor: anchor };
        if mode == SandboxMode::Required && (&sandbox.files, &sandbox.calls) != (&Part::Full, &Part::Full) {
            return Err(NotSandboxed { found: sandbox.to_string() });
        }
        for (part, what) in [(&sandbox.files, "files"), (&sandbox.calls, "system calls")] {
            match part {
                Part::Full => {}
                Part::Some => tracing::info!("this kernel enforces a part of the sandbox of {what} only"),
                Part::None(why) => tracing::info!(why, "there is no sandbox of {what}"),
            }
        }
        Ok(sandbox)
    }
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mode == SandboxMode::Off {
            return f.write_str("off");
        }
        write!(f, "files: {}, system calls: {}", self.files, self.calls)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("its own only"),
            Self::Some => f.write_str("its own only, as far as this kernel goes"),
            Self::None(why) => write!(f, "all ({why})"),
        }
    }
}

/// The sandbox is required, and this kernel does not do all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSandboxed {
    found: String,
}

impl fmt::Display for NotSandboxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the sandbox is required, and this kernel does not do all of it ({})\n  help: Linux 6.10 does, with Landlock \
             among the modules of its option `lsm`; or write `sandbox = \"on\"` under [server], which goes as far as the \
             kernel does",
            self.found
        )
    }
}

impl std::error::Error for NotSandboxed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_is_told() {
        let sandbox = |mode, files, calls| Sandbox { mode, files, calls, _anchor: None }.to_string();
        let why = || Part::None("not supported".to_owned());
        assert_eq!(
            sandbox(SandboxMode::On, Part::Full, Part::Full),
            "files: its own only, system calls: its own only"
        );
        assert_eq!(
            sandbox(SandboxMode::Required, why(), Part::Some),
            "files: all (not supported), system calls: its own only, as far as this kernel goes"
        );
        assert_eq!(sandbox(SandboxMode::Off, why(), why()), "off");
    }
}
