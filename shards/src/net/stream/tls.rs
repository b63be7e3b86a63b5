//! TLS records between a socket and the bytes they carry.
//!
//! Nothing here waits. Reading carries the handshake on, both ways; what the socket does not take stays in the session, whose
//! buffers are bounded, and leaves with [`TlsSession::flush`].

use std::io::{self, Read, Write};
use std::net::IpAddr;

use comsipl_core::Transport;
use rustls::{CertificateError, ClientConnection, Connection, ServerConnection};

use super::unfinished::Records;
use crate::tls::{Tls, server_name};

/// One TLS connection.
#[derive(Debug)]
pub struct TlsSession {
    /// Kept apart, because it is large and most connections have none.
    connection: Box<Connection>,
    said_goodbye: bool,
    records: Records,
    /// Records in a row that brought nothing: neither content nor anything to answer.
    idle_records: u64,
}

impl TlsSession {
    /// The session of a connection that was accepted on a listener of this transport.
    ///
    /// # Errors
    /// What the library says.
    pub fn accept(tls: &Tls, transport: Transport) -> Result<Self, rustls::Error> {
        Ok(Self::new(ServerConnection::new(tls.server(transport))?.into()))
    }

    /// The session of a connection that we opened to `address`, and to `host` if it was found by a name.
    ///
    /// # Errors
    /// What the library says, also of a name that no certificate could have.
    pub fn dial(tls: &Tls, host: Option<&str>, address: IpAddr) -> Result<Self, rustls::Error> {
        let name = server_name(host, address).ok_or(CertificateError::NotValidForName)?;
        Ok(Self::new(ClientConnection::new(tls.client(), name)?.into()))
    }

    fn new(mut connection: Connection) -> Self {
        connection.set_buffer_limit(Some(RECORDS_LEN_MAX));
        let (records, idle_records) = (Records::default(), 0);
        Self { connection: Box::new(connection), said_goodbye: false, records, idle_records }
    }

    /// The bytes carried by the records on `socket`.
    pub fn over<'a, S>(&'a mut self, socket: &'a mut S) -> TlsStream<'a, S> {
        TlsStream { session: self, socket }
    }

    /// Whether the handshake goes on.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether something has begun and not ended: a record, or what lies in more records than one. Of the latter only the
    /// sender knows; but messages of the handshake do not share their records with anything else and are not interrupted
    /// (RFC 8446 §5.1), so whoever goes on sending records that bring nothing is in the middle of one, or wants nothing.
    #[must_use]
    pub const fn is_within_unit(&self) -> bool {
        self.records.is_within() || self.idle_records > IDLE_RECORDS_MAX
    }

    /// Whether records wait for the socket.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.connection.wants_write()
    }

    /// Lets a `close_notify` alert follow what was written (RFC 8446 §6.1).
    pub fn say_goodbye(&mut self) {
        if !std::mem::replace(&mut self.said_goodbye, true) {
            self.connection.send_close_notify();
        }
    }

    /// Writes the records that wait; says whether some are left.
    ///
    /// # Errors
    /// What the socket says, but `WouldBlock`.
    pub fn flush(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// A session with its socket, for the length of a call.
pub struct TlsStream<'a, S> {
    session: &'a mut TlsSession,
    socket: &'a mut S,
}

impl<S: Read + Write> Read for TlsStream<'_, S> {
    /// Zero is the end, whether or not the peer has said good-bye: messages have lengths, so one that was cut short is known
    /// to be.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let connection = &mut self.session.connection;
            match connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            let ended = self.session.records.ended();
            match connection
                .read_tls(&mut Followed { socket: self.socket, records: &mut self.session.records })
            {
                Ok(0) if connection.is_handshaking() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    if error.kind() == io::ErrorKind::WouldBlock {
                        self.session.flush(self.socket)?;
                    }
                    return Err(error);
                }
            }
            match connection.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() == 0 && state.tls_bytes_to_write() == 0 => {
                    self.session.idle_records += self.session.records.ended() - ended;
                }
                Ok(_) => self.session.idle_records = 0,
                Err(error) => {
                    // The alert that tells the peer why. Nothing can be done where it does not get through.
                    let _ = self.session.flush(self.socket);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
    }
}

/// A socket whose records are followed while they are read.
struct Followed<'a, S> {
    socket: &'a mut S,
    records: &'a mut Records,
}

impl<S: Read> Read for Followed<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.socket.read(buffer)?;
        self.records.take(&buffer[..count]);
        Ok(count)
    }
}

impl<S: Write> Write for TlsStream<'_, S> {
    /// Takes nothing before the end of the handshake: there is nobody yet to encrypt it for.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.session.is_handshaking() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            let count = self.session.connection.writer().write(bytes)?;
            if count > 0 || bytes.is_empty() {
                return Ok(count);
            }
            // The session has taken what it may: first some of that must leave.
            if self.session.flush(self.socket)? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.session.flush(self.socket)? { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }
}

/// Most bytes of records that wait for a socket; more stays unencrypted in the out-buffer, which has its own bound. One
/// record of full length fits.
pub const RECORDS_LEN_MAX: usize = 32 * 1024;

/// More records in a row that bring nothing than a server gives tickets behind a handshake, or a peer new keys.
const IDLE_RECORDS_MAX: u64 = 4;

#[cfg(test)]
mod tests;
