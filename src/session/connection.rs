//! An open connection: socket, TLS and websocket framing, non-blocking. Owned by the session's thread.
//!
//! Buffers are the memory of an idle session, so there is one here: what waits to be sent, and it is given back when
//! it was large. What came is handed on from where TLS decrypted it.

use std::{
    io::{self, BufRead, Write},
    net::{Shutdown, TcpStream},
    os::fd::{AsFd, BorrowedFd},
};

use rustls::ClientConnection;

use super::websocket::{Decoder, Encoder, Incoming, WebSocketError};

/// rustls reads into a buffer of at least this size.
const SMALLEST_READ: usize = 4096;
/// Bytes that may wait for a slow socket before the session takes nothing more in.
const MAX_UNSENT_BYTES: usize = 1 << 20;
/// The send buffer keeps at most this while there is nothing to send.
const KEPT_BYTES: usize = 1 << 10;
/// Websocket close code: going away.
const CLOSE_GOING_AWAY: u16 = 1001;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    /// By the other side.
    #[error("the server closed the connection")]
    Closed,
    /// By the network.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// Bytes that are not TLS.
    #[error("TLS failed: {0}")]
    Tls(#[from] rustls::Error),
    /// Bytes that are not websocket frames.
    #[error("{0}")]
    WebSocket(#[from] WebSocketError),
}

/// See the module.
pub(super) struct Connection {
    tcp: TcpStream,
    tls: ClientConnection,
    decoder: Decoder,
    encoder: Encoder,
    unsent: Vec<u8>,
    /// Decrypted bytes that came together with the answer to the upgrade.
    first: Vec<u8>,
}

impl Connection {
    /// `first` came behind the websocket handshake.
    pub(super) fn new(tcp: TcpStream, tls: ClientConnection, first: &[u8]) -> io::Result<Self> {
        tcp.set_nonblocking(true)?;
        Ok(Self {
            tcp,
            tls,
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            unsent: Vec::new(),
            first: first.to_vec(),
        })
    }

    /// Reads once from the socket and hands on the data in it; whether there may be more. A read that did not fill its
    /// buffer has emptied the socket: what comes later is for `poll` to tell.
    pub(super) fn read(&mut self, mut on_data: impl FnMut(&[u8])) -> Result<bool, ConnectionError> {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            self.decode(&first, &mut on_data)?;
        }
        let may_be_more = match self.tls.read_tls(&mut self.tcp) {
            Ok(0) => return Err(ConnectionError::Closed),
            Ok(count) => count >= SMALLEST_READ,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let result = self.tls.process_new_packets();
        let (mut data, mut closed) = (self.drain(&mut on_data)?, false);
        while data > 0 {
            data = self.drain(&mut on_data)?;
        }
        match result {
            Ok(state) => closed |= state.peer_has_closed(),
            Err(error) => {
                // The alert says why to the other side; best effort.
                drop(self.tls.write_tls(&mut self.tcp));
                return Err(error.into());
            }
        }
        if closed { Err(ConnectionError::Closed) } else { Ok(may_be_more) }
    }

    /// Hands on one piece of decrypted bytes; how many they were.
    fn drain(&mut self, on_data: &mut impl FnMut(&[u8])) -> Result<usize, ConnectionError> {
        let Self { tls, decoder, encoder, unsent, .. } = self;
        let mut reader = tls.reader();
        let bytes = match reader.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let length = bytes.len();
        decode(decoder, encoder, unsent, bytes, on_data)?;
        reader.consume(length);
        Ok(length)
    }

    fn decode(&mut self, bytes: &[u8], on_data: &mut impl FnMut(&[u8])) -> Result<(), ConnectionError> {
        decode(&mut self.decoder, &mut self.encoder, &mut self.unsent, bytes, on_data)
    }

    /// Queues one binary message.
    pub(super) fn send(&mut self, payload: &[u8]) {
        self.encoder.binary(&mut self.unsent, payload);
    }

    /// Writes what waits, as far as the socket takes it: everything queued since the last call in one TLS record.
    pub(super) fn flush(&mut self) -> Result<(), ConnectionError> {
        // One record at a time: what the socket does not take stays in `unsent`, where it is counted.
        while self.tls.wants_write() || !self.unsent.is_empty() {
            if !self.tls.wants_write() {
                let taken = self.tls.writer().write(&self.unsent)?;
                self.unsent.drain(..taken);
            }
            match self.tls.write_tls(&mut self.tcp) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.unsent.capacity() > KEPT_BYTES {
            self.unsent = Vec::new();
        }
        Ok(())
    }

    /// Whether the socket must be asked for room.
    pub(super) fn wants_write(&self) -> bool {
        self.tls.wants_write() || !self.unsent.is_empty()
    }

    /// Whether so much waits that nothing more should be taken in.
    pub(super) fn is_choked(&self) -> bool {
        self.unsent.len() > MAX_UNSENT_BYTES
    }

    /// Says good-bye, as far as the socket takes it.
    pub(super) fn close(mut self) {
        self.encoder.close(&mut self.unsent, CLOSE_GOING_AWAY);
        let said = self.flush();
        self.tls.send_close_notify();
        if said.is_ok() && self.flush().is_ok() {
            drop(self.tcp.shutdown(Shutdown::Write));
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

fn decode(
    decoder: &mut Decoder,
    encoder: &mut Encoder,
    unsent: &mut Vec<u8>,
    bytes: &[u8],
    on_data: &mut impl FnMut(&[u8]),
) -> Result<(), ConnectionError> {
    let mut closed = false;
    decoder.feed(bytes, |incoming| match incoming {
        Incoming::Data(bytes) => on_data(bytes),
        Incoming::Ping(bytes) => encoder.pong(unsent, bytes),
        Incoming::Close(code) => {
            log::debug!("websocket closed by the server, code {code:?}");
            closed = true;
        }
    })?;
    if closed { Err(ConnectionError::Closed) } else { Ok(()) }
}
