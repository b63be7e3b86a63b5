//! Users from the command line to the phone: the real binary, its control socket and its files.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use comsipl_core::auth::Algorithm;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

#[test]
fn a_user_who_is_added_while_the_server_runs_may_register() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--auth", "digest", "--shards", "3"]);
    let phone = Phone::of(&server, "alice");
    assert_eq!(phone.register("secret"), 401, "nobody is there yet");
    let added = user(folder.path(), &["add", "alice@example.com"], "secret\n");
    assert_eq!((code(&added), stdout(&added)), (0, "alice@example.com is added\n".to_owned()));
    assert_eq!(phone.register("secret"), 200);
    assert_eq!(phone.register("wrong"), 401);
    let again = user(folder.path(), &["add", "sip:alice@Example.com"], "other");
    assert_eq!(code(&again), 1);
    assert!(stderr(&again).contains("exists") && stderr(&again).contains("comsipl user passwd"), "{again:?}");
    assert_eq!(phone.register("secret"), 200, "nothing has changed");
    let file = folder.path().join("password");
    fs::write(&file, "third\r\n").unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(code(&user(folder.path(), &["passwd", "alice@example.com", "--password-file", file], "")), 0);
    assert_eq!((phone.register("secret"), phone.register("third")), (401, 200));
    assert_eq!(code(&user(folder.path(), &["remove", "alice@example.com"], "")), 0);
    assert_eq!(phone.register("third"), 401);
    let gone = user(folder.path(), &["remove", "alice@example.com"], "");
    assert!(code(&gone) == 1 && stderr(&gone).contains("no such user: alice@example.com"), "{gone:?}");
}

#[test]
fn users_are_changed_without_a_server_as_well_and_outlive_it() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(code(&user(folder.path(), &["add", "alice@example.com", "--password", "secret"], "")), 0);
    let mut server = Server::start(folder.path(), &["--auth", "digest"]);
    let phone = Phone::of(&server, "alice");
    assert_eq!(phone.register("secret"), 200);
    assert!(folder.path().join("data/control.sock").exists());
    server.stop(Signal::TERM);
    assert!(!folder.path().join("data/control.sock").exists());
    assert_eq!(code(&user(folder.path(), &["passwd", "alice@example.com", "--password", "other"], "")), 0);
    let server = Server::start(folder.path(), &["--auth", "digest"]);
    let phone = Phone::of(&server, "alice");
    assert_eq!((phone.register("secret"), phone.register("other")), (401, 200));
}

#[test]
fn a_socket_that_a_killed_server_left_behind_is_no_hindrance() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &["--auth", "digest"]);
    server.stop(Signal::KILL);
    assert!(folder.path().join("data/control.sock").exists());
    assert_eq!(code(&user(folder.path(), &["add", "alice@example.com", "--password", "secret"], "")), 0);
    let server = Server::start(folder.path(), &["--auth", "digest"]);
    assert_eq!(Phone::of(&server, "alice").register("secret"), 200);
    assert_eq!(code(&user(folder.path(), &["add", "bob@example.com", "--password", "hidden"], "")), 0);
    assert_eq!(Phone::of(&server, "bob").register("hidden"), 200);
}

#[test]
fn a_server_without_its_socket_is_named_as_what_is_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--auth", "digest"]);
    let socket = folder.path().join("data/control.sock");
    fs::remove_file(&socket).unwrap();
    for leave_stale in [false, true] {
        if leave_stale {
            drop(UnixListener::bind(&socket).unwrap());
        }
        let refused = user(folder.path(), &["add", "alice@example.com", "--password", "secret"], "");
        assert_eq!(code(&refused), 1);
        let message = stderr(&refused);
        assert!(message.contains("nobody answers at") && message.contains("control.sock"), "{message}");
        assert!(message.contains("help: "), "{message}");
    }
    assert_eq!(Phone::of(&server, "alice").register("secret"), 401, "the server goes on");
}

#[test]
fn users_are_listed_for_people_and_for_programs() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("comsipl.toml");
    fs::write(&config, "[auth]\nrealm = \"carrier\"\n").unwrap();
    let config = config.to_str().unwrap();
    user(folder.path(), &["add", "bob@example.com", "--password", "x"], "");
    user(folder.path(), &["add", "alice@example.com", "--password", "x", "--config", config], "");
    let list = user(folder.path(), &["list", "--json", "--config", config], "");
    let users: Vec<serde_json::Value> =
        stdout(&list).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(users.len(), 2);
    assert_eq!((&users[0]["user"], &users[0]["realm_ok"]), (&"alice@example.com".into(), &true.into()));
    assert_eq!((&users[1]["user"], &users[1]["realm_ok"]), (&"bob@example.com".into(), &false.into()));
    assert_eq!(users[0]["algorithms"], serde_json::json!(["SHA-256", "MD5"]));
    let named = ["carol@example.com", "--password", "x", "--auth-name", "x-1", "--config", config];
    user(folder.path(), &[&["add"][..], &named].concat(), "");
    user(folder.path(), &["passwd", "carol@example.com", "--password", "y", "--config", config], "");
    let list = stdout(&user(folder.path(), &["list", "--json", "--config", config], ""));
    assert!(list.contains(r#""auth_name":"x-1""#) && list.contains(r#""auth_name":null"#), "{list}");
    user(folder.path(), &["remove", "carol@example.com"], "");
    let list = stdout(&user(folder.path(), &["list", "--config", config], ""));
    assert!(list.contains("2 users") && list.contains("needs a new password"), "{list}");
}

#[test]
fn what_is_wrong_is_told_and_nothing_is_done() {
    let folder = tempfile::tempdir().unwrap();
    for (args, input, part) in [
        (&["add", "alice"][..], "", "alice@example.net"),
        (&["add", "alice@example.com"], "", "a password is expected, found nothing"),
        (&["add", "alice@example.com"], &"x".repeat(300), "at most 256 bytes"),
        (&["add", "alice@example.com", "--password-file", "no-such-file"], "", "no-such-file"),
        (&["import", "no-such.csv"], "", "no-such.csv"),
        (&["remove"], "", "USER"),
    ] {
        let refused = user(folder.path(), args, input);
        assert_eq!(code(&refused), 2, "{args:?} {refused:?}");
        assert!(stderr(&refused).contains(part), "{args:?}: {}", stderr(&refused));
    }
    let csv = folder.path().join("users.csv");
    fs::write(&csv, "user,password\nalice@example.com,x\nbob,y\n").unwrap();
    let refused = user(folder.path(), &["import", csv.to_str().unwrap()], "");
    assert_eq!(code(&refused), 2);
    let message = stderr(&refused);
    for part in ["users.csv:3: ", "expected, found \"bob\"", "help: ", "nothing is changed"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert!(stdout(&user(folder.path(), &["list"], "")).contains("0 users"));
}

#[test]
fn ten_thousand_users_are_imported_into_a_running_server() {
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("users.csv");
    let mut text = "user,password\n".to_owned();
    for n in 0..10_000 {
        text += &format!("user{n}@example.com,password {n}\n");
    }
    fs::write(&csv, text).unwrap();
    let server = Server::start(folder.path(), &["--auth", "digest", "--shards", "4"]);
    let begin = Instant::now();
    let imported = user(folder.path(), &["import", csv.to_str().unwrap()], "");
    println!("10,000 users in {:?}: {}", begin.elapsed(), stdout(&imported).trim());
    assert!(stdout(&imported).starts_with("10000 users added, 0 changed"), "{imported:?}");
    for n in [0, 4711, 9999] {
        assert_eq!(Phone::of(&server, &format!("user{n}")).register(&format!("password {n}")), 200);
    }
    let again = user(folder.path(), &["import", csv.to_str().unwrap()], "");
    assert!(stdout(&again).starts_with("0 users added, 10000 changed"), "{again:?}");
    let list = user(folder.path(), &["list", "--json"], "");
    assert_eq!(stdout(&list).lines().count(), 10_000);
}

#[test]
fn the_security_log_names_who_guesses_passwords() {
    let folder = tempfile::tempdir().unwrap();
    user(folder.path(), &["add", "alice@example.com", "--password", "secret"], "");
    let mut server = Server::start(folder.path(), &["--auth", "digest"]);
    assert_eq!(Phone::of(&server, "alice").register("wrong"), 401);
    assert_eq!(Phone::of(&server, "eve").register("evil"), 401);
    let log = server.stop(Signal::TERM).join("\n");
    let source = "source=127.0.0.1";
    for part in [
        format!("event=auth_failed {source} user=alice method=REGISTER reason=wrong_password"),
        format!("event=auth_failed {source} user=eve method=REGISTER reason=unknown_user"),
    ] {
        assert!(log.contains(&part), "{part} in {log}");
    }
    assert!(!log.contains("secret") && !log.contains("evil"));
}

/// Once the program waited for Enter after Ctrl-C, and the terminal stayed silent if somebody lost patience.
#[test]
fn a_question_ends_at_once_when_somebody_wants_that_and_the_terminal_shows_again_what_is_typed() {
    let folder = tempfile::tempdir().unwrap();
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let terminal = open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let shows = || tcgetattr(&terminal).unwrap().local_modes.contains(LocalModes::ECHO);
    assert!(shows());
    let mut command = Command::new(COMSIPL);
    command.args(["user", "add", "alice@example.com", "--data-dir"]).arg(folder.path().join("data"));
    command.stdin(terminal.try_clone().unwrap()).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut asked = [0; 9];
    child.stderr.as_mut().unwrap().read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"Password ");
    assert!(!shows(), "before anybody types");
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).unwrap();
    let (sender, ended) = channel();
    std::thread::spawn(move || sender.send(child.wait()));
    let Ok(status) = ended.recv_timeout(PATIENCE) else {
        kill_process(pid, Signal::KILL).unwrap();
        panic!("it waits for Enter");
    };
    assert_eq!(status.unwrap().code(), Some(130));
    assert!(shows());
    assert!(!folder.path().join("data").exists(), "nothing is changed");
}

/// Once root added the first user of a server that another user runs, and that server could not open its file.
#[test]
fn a_new_file_belongs_to_the_owner_of_its_directory() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(&data, Some(4711), Some(4712)).unwrap();
    }
    let added = user(folder.path(), &["add", "alice@example.com", "--password", "secret"], "");
    assert_eq!(code(&added), 0, "{added:?}");
    let owner = |path: &Path| (fs::metadata(path).unwrap().uid(), fs::metadata(path).unwrap().gid());
    assert_eq!(owner(&data.join("registered.fdb")), owner(&data));
    for entry in fs::read_dir(&data).unwrap() {
        assert_eq!(owner(&entry.unwrap().path()), owner(&data), "nothing else is left behind either");
    }
}

/// What root leaves behind when the disk is full, or copies there, the server could not open.
#[test]
fn a_file_that_root_left_behind_belongs_to_the_owner_of_its_directory_too() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = data.join("registered.fdb");
    fs::create_dir(&data).unwrap();
    chown(&data, Some(4711), Some(4712)).unwrap();
    let owner = || fs::metadata(&file).map(|it| (it.uid(), it.gid())).ok();
    // The shell's limit is in blocks of 512 bytes, fewer than a new file needs; beyond it a signal would come.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" user add alice@example.com --password secret --data-dir \"$1\"";
    let full = Command::new("sh").args(["-c", script, COMSIPL]).arg(&data).output().unwrap();
    assert_eq!((code(&full), owner()), (1, Some((4711, 4712))), "{full:?}");
    for links in [1, 2] {
        chown(&file, Some(0), Some(0)).unwrap();
        if links == 2 {
            fs::hard_link(&file, folder.path().join("another's")).unwrap();
        }
        user(folder.path(), &["add", &format!("alice{links}@example.com"), "--password", "secret"], "");
        assert_eq!(owner(), Some(if links == 1 { (4711, 4712) } else { (0, 0) }));
    }
    // Nothing is given away that is no file of ours.
    fs::remove_file(&file).unwrap();
    fs::write(&file, "root's own").unwrap();
    assert_eq!(code(&user(folder.path(), &["add", "bob@example.com", "--password", "secret"], "")), 1);
    assert_eq!(owner(), Some((0, 0)));
}

/// Once a file that could not be read passed for one without the user's name, and the new password was for another.
#[test]
fn a_password_is_not_changed_where_the_name_for_it_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::write(folder.path().join("data/registered.fdb"), "COMSIPLF and no more").unwrap();
    let refused = user(folder.path(), &["passwd", "alice@example.com"], "");
    assert_eq!(code(&refused), 1, "before a password is asked for: {refused:?}");
    assert!(stderr(&refused).contains("registered.fdb"), "{refused:?}");
    fs::remove_file(folder.path().join("data/registered.fdb")).unwrap();
    let unknown = user(folder.path(), &["passwd", "alice@example.com", "--password", "x"], "");
    assert!(code(&unknown) == 1 && stderr(&unknown).contains("does not exist"), "{unknown:?}");
}

/// A phone that registers with a password.
struct Phone {
    socket: UdpSocket,
    server: SocketAddr,
    name: String,
}

impl Phone {
    fn of(server: &Server, name: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, server: server.address, name: name.to_owned() }
    }

    /// Registers as a phone does: is challenged, answers, and is told the status.
    fn register(&self, password: &str) -> u16 {
        let challenged = self.ask(1, "");
        assert!(challenged.starts_with("SIP/2.0 401 "), "{challenged}");
        let nonce = challenged.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap();
        let hex = |hash: comsipl_core::auth::Hash| {
            let mut text = [0; 64];
            String::from_utf8(hash.hex(&mut text).to_vec()).unwrap()
        };
        let hash = |text: String| hex(Algorithm::Sha256.hash(&[text.as_bytes()]));
        let a1 = hash(format!("{}:example.com:{password}", self.name));
        let a2 = hash("REGISTER:sip:example.com".to_owned());
        let response = hash(format!("{a1}:{nonce}:00000001:c:auth:{a2}"));
        let answer = self.ask(
            2,
            &format!(
                "Authorization: Digest username=\"{}\", realm=\"example.com\", nonce=\"{nonce}\", uri=\"sip:example.com\", \
                 response=\"{response}\", algorithm=SHA-256, qop=auth, nc=00000001, cnonce=\"c\"\r\n",
                self.name
            ),
        );
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn ask(&self, cseq: u32, authorization: &str) -> String {
        let Self { name, socket, server } = self;
        let (at, unique) = (socket.local_addr().unwrap(), Instant::now());
        let branch = format!("{unique:?}").replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let request = format!(
            "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK{branch};rport\r\n\
             From: <sip:{name}@example.com>;tag=1\r\nTo: <sip:{name}@example.com>\r\nCall-ID: {branch}\r\n\
             CSeq: {cseq} REGISTER\r\nMax-Forwards: 70\r\nContact: <sip:{name}@{at}>\r\n{authorization}\
             Content-Length: 0\r\n\r\n"
        );
        socket.send_to(request.as_bytes(), server).unwrap();
        let mut room = [0; 4096];
        let (length, _) = socket.recv_from(&mut room).expect("an answer");
        String::from_utf8(room[..length].to_vec()).unwrap()
    }
}

/// The binary under test.
const COMSIPL: &str = env!("CARGO_BIN_EXE_comsipl");

/// Longest that anything may take that is not measured.
const PATIENCE: Duration = Duration::from_secs(30);

/// `comsipl user` about the files in `folder/data`.
fn user(folder: &Path, args: &[&str], input: &str) -> Output {
    let mut command = Command::new(COMSIPL);
    command.arg("user").args(args).arg("--data-dir").arg(folder.join("data")).current_dir(folder);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that asks for nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running server; killed when dropped.
struct Server {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    address: SocketAddr,
}

impl Server {
    /// Starts one on a free port of loopback, its files in `folder/data`, and waits until it is ready.
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(COMSIPL);
        command
            .args(["serve", "--listen", "udp:127.0.0.1:0", "--data-dir"])
            .arg(folder.join("data"))
            .args(args);
        command.env_remove("COMSIPL_LOG").current_dir(folder);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("ready") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it did not get ready");
        }
        let address = line.split("udp:").nth(1).unwrap().trim().parse().unwrap();
        Self { child, stderr, address }
    }

    /// Sends a signal, waits for the end, and gives what was said since the start.
    fn stop(&mut self, signal: Signal) -> Vec<String> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap();
        (&mut self.stderr).lines().map_while(Result::ok).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
