//! A program under test: a child in its own process group, whose output lines can be waited for.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// How long a test waits for anything before it fails: far longer than a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A child process in its own process group, killed with all its children when dropped.
///
/// Its standard output and standard error are read by threads of our own, so that it never blocks on a full pipe.
/// Lines are looked at once: [`Process::expect`] goes on where the one before it stopped. With `COMSIPL_TEST_TRACES` set
/// to a folder, everything that a program said is left there.
pub struct Process {
    name: String,
    child: Child,
    input: Option<Box<dyn Write + Send>>,
    output: Arc<Output>,
    /// Index of the first line that no `expect` has passed yet.
    cursor: usize,
}

/// How a program is given its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// It reads nothing.
    None,
    /// A pipe.
    Pipe,
    /// A terminal, for programs that work only while readline waits for a key. Its output is the terminal's too.
    Terminal,
}

impl Process {
    /// Starts `command` in a process group of its own.
    ///
    /// # Errors
    /// When the program cannot be started or no terminal can be had.
    pub fn spawn(name: &str, mut command: Command, input: Input) -> Result<Self> {
        command.process_group(0);
        let mut terminal = None;
        match input {
            Input::None | Input::Pipe => {
                command.stdin(if input == Input::Pipe { Stdio::piped() } else { Stdio::null() });
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
            Input::Terminal => {
                let (ours, theirs) = open_terminal().context("no pseudo terminal")?;
                command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
                command.env("TERM", "dumb");
                terminal = Some(ours);
            }
        }
        let mut child = command.spawn().with_context(|| format!("{name} does not start"))?;
        // The command holds our copies of the terminal's far end: dropped, so that the end of the child ends our reading.
        drop(command);

        let output = Arc::new(Output::default());
        let mut sources: Vec<Box<dyn Read + Send>> = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            sources.push(Box::new(stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            sources.push(Box::new(stderr));
        }
        let mut writer: Option<Box<dyn Write + Send>> = None;
        if let Some(stdin) = child.stdin.take() {
            writer = Some(Box::new(stdin));
        }
        if let Some(ours) = terminal {
            sources.push(Box::new(ours.try_clone()?));
            writer = Some(Box::new(ours));
        }
        output.lock().open = sources.len();
        for source in sources {
            let output = Arc::clone(&output);
            thread::spawn(move || output.read(source));
        }
        Ok(Self { name: name.to_owned(), child, input: writer, output, cursor: 0 })
    }

    /// Writes one line to the program.
    ///
    /// # Errors
    /// When it has no input or no longer reads it.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("this program was started without input")?;
        input.write_all(format!("{line}\n").as_bytes())?;
        input.flush()?;
        Ok(())
    }

    /// Waits for the next line that satisfies `wanted`, and passes it.
    ///
    /// # Errors
    /// When none comes within [`PATIENCE`] or the program ends: the error tells its last lines.
    pub fn expect(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let mut from = self.cursor;
        let line = self.wait_for(&mut from, what, wanted);
        self.cursor = from;
        line
    }

    /// A point in the output to look from with [`Process::expect_since`]: here and now.
    pub fn mark(&self) -> usize {
        self.output.lock().lines.len()
    }

    /// As [`Process::expect`], from a mark on and without passing anything: for the answer to a command, while what the
    /// program says by itself is waited for in order.
    ///
    /// # Errors
    /// As [`Process::expect`].
    pub fn expect_since(&self, mark: usize, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let mut from = mark;
        self.wait_for(&mut from, what, wanted)
    }

    fn wait_for(&self, from: &mut usize, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.output.lock();
        loop {
            while *from < state.lines.len() {
                *from += 1;
                if wanted(&state.lines[*from - 1]) {
                    return Ok(state.lines[*from - 1].clone());
                }
            }
            if state.open == 0 {
                bail!("{} ended before it said: {what}\n{}", self.name, state.tail());
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                bail!("{} did not say within {PATIENCE:?}: {what}\n{}", self.name, state.tail());
            };
            let (guard, _) =
                self.output.grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = guard;
        }
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has said so far.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().lines.clone()
    }

    /// Whether any line that no `expect` has passed yet satisfies `wanted`; passes nothing.
    pub fn has_said(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.output.lock().lines[self.cursor..].iter().any(|line| wanted(line))
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// When it does not end within [`PATIENCE`].
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits until the program ends by itself.
    ///
    /// # Errors
    /// When it does not end within [`PATIENCE`].
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.output.lock();
        // The end of its output announces the end of the process, so that nothing here has to poll.
        while state.open > 0 {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                bail!("{} did not end within {PATIENCE:?}\n{}", self.name, state.tail());
            };
            let (guard, _) =
                self.output.grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = guard;
        }
        drop(state);
        Ok(self.child.wait()?)
    }

    /// Kills the process and its children with SIGKILL, as a crash would, and reaps it.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    fn signal(&mut self, signal: Signal) {
        // A process that has been reaped has no id any more: nobody else's group may be hit.
        if let Ok(None) = self.child.try_wait()
            && let Some(group) = Pid::from_raw(self.child.id().cast_signed())
        {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some(folder) = std::env::var_os("COMSIPL_TEST_TRACES") {
            let file = format!("{}-{}.log", self.name.replace(' ', "-"), self.child.id());
            let _ = std::fs::write(Path::new(&folder).join(file), self.lines().join("\n"));
        }
    }
}

/// The lines of a program, filled by reader threads.
#[derive(Default)]
struct Output {
    state: Mutex<Lines>,
    grown: Condvar,
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    /// Streams that have not ended.
    open: usize,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads `source` to its end. A terminal ends with an error (EIO) when its last program ends.
    fn read(&self, source: impl Read) {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        while let Ok(1..) = source.read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            self.lock().lines.push(text);
            self.grown.notify_all();
            line.clear();
        }
        self.lock().open -= 1;
        self.grown.notify_all();
    }
}

impl Lines {
    fn tail(&self) -> String {
        let first = self.lines.len().saturating_sub(TAIL_LINES);
        let mut tail = String::new();
        for line in &self.lines[first..] {
            let _ = writeln!(tail, "    {line}");
        }
        tail
    }
}

/// How much of a program's output a failure quotes.
const TAIL_LINES: usize = 150;

fn open_terminal() -> Result<(File, File)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let path = ptsname(&ours, Vec::new())?;
    let theirs = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((File::from(ours), File::from(theirs)))
}
