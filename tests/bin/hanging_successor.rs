//! A new process that takes over as far as having everything, and hangs then: `hanging-successor DATA_DIR SHARDS`.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use comsipl_shards::control::{Request, SOCKET_NAME};
use comsipl_shards::deadline::Deadline;
use comsipl_shards::restart::courier::Courier;
use comsipl_shards::restart::{FORMAT, Message};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let data_dir = args.next().context("no data directory")?;
    let shards = args.next().context("no number of shards")?.parse()?;
    let deadline = Deadline::of(Duration::from_secs(30));
    let socket = UnixStream::connect(Path::new(&data_dir).join(SOCKET_NAME))?;
    let mut courier = Courier::new(socket, Vec::new())?;
    courier.send_line(&Request::TakeOver { format: FORMAT, shards }, &deadline)?;
    courier.receive_line(&deadline)?;
    let offered = courier.receive::<Message>(&deadline)?;
    ensure!(matches!(offered.text, Message::Sockets { last: true, .. }), "{offered:?}");
    courier.send(&Message::Release, &[], &[], &deadline)?;
    // What came is kept open, as by a process that goes on.
    let mut parcels = Vec::new();
    loop {
        let parcel = courier.receive::<Message>(&deadline)?;
        let is_all = matches!(parcel.text, Message::Released { .. });
        parcels.push(parcel);
        if is_all {
            break;
        }
    }
    println!("has everything");
    loop {
        std::thread::park();
    }
}
