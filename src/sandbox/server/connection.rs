//! One client connection: TLS and websocket on one thread, which waits for bytes and for its outbox in one place.

use std::{
    io::ErrorKind,
    net::{Shutdown, TcpStream},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rand_core::OsRng;
use rustix::event::{PollFd, PollFlags};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tungstenite::{Message, WebSocket, protocol::WebSocketConfig};

use super::shared::{End, Outbox, Shared, lock};
use crate::sandbox::{
    link::{Link, LinkEvent},
    world::ConnId,
};

type Socket = WebSocket<StreamOwned<ServerConnection, TcpStream>>;

/// Serves one connection until it ends.
pub(super) fn serve(shared: &Shared, stream: TcpStream, tls: Arc<ServerConfig>) {
    let Some(socket) = accept(stream, tls) else { return };
    let Ok(outbox) = Outbox::new() else { return };
    let outbox = Arc::new(outbox);
    let conn = shared.add_connection(outbox.clone());
    let lie = *lock(&shared.lie);
    let link = shared.identity.link(lie, &mut OsRng);
    Connection { shared, socket, outbox, conn, link, unsent: false }.run();
    shared.remove_connection(conn);
}

fn accept(stream: TcpStream, tls: Arc<ServerConfig>) -> Option<Socket> {
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(HANDSHAKE_TIMEOUT)).ok()?;
    let stream = StreamOwned::new(ServerConnection::new(tls).ok()?, stream);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE));
    let socket = tungstenite::accept_with_config(stream, Some(config)).ok()?;
    socket.get_ref().sock.set_nonblocking(true).ok()?;
    Some(socket)
}

struct Connection<'a> {
    shared: &'a Shared,
    socket: Socket,
    outbox: Arc<Outbox>,
    conn: ConnId,
    link: Link,
    /// The socket did not take everything.
    unsent: bool,
}

/// The connection is over.
struct Over;

impl Connection<'_> {
    fn run(mut self) {
        while self.write().and_then(|()| self.wait()).and_then(|()| self.read()).is_ok() {}
        let _ = self.socket.get_ref().sock.shutdown(Shutdown::Both);
    }

    /// Writes what waits in the outbox.
    fn write(&mut self) -> Result<(), Over> {
        let (nodes, end) = self.outbox.take();
        if end == Some(End::Cut) {
            return Err(Over);
        }
        let mut wrote = !nodes.is_empty();
        for node in nodes {
            let bytes = self.link.encrypt(&node);
            if !bytes.is_empty() {
                queued(self.socket.write(Message::binary(bytes)))?;
            }
        }
        if end.is_some() {
            let _ = self.socket.close(None);
            let _ = self.socket.flush();
            return Err(Over);
        }
        wrote |= self.unsent;
        if wrote {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Over> {
        match self.socket.flush() {
            Ok(()) => self.unsent = false,
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => self.unsent = true,
            Err(_) => return Err(Over),
        }
        Ok(())
    }

    /// Sleeps until there is something to read or to write.
    fn wait(&self) -> Result<(), Over> {
        let mut flags = PollFlags::IN;
        if self.unsent {
            flags |= PollFlags::OUT;
        }
        let socket = &self.socket.get_ref().sock;
        let mut fds = [PollFd::new(socket, flags), PollFd::new(&self.outbox.wake, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(_) => Err(Over),
        }
    }

    /// Reads until the socket has no more.
    fn read(&mut self) -> Result<(), Over> {
        if self.shared.stopping.load(Ordering::Acquire) {
            return Err(Over);
        }
        loop {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.take(&bytes)?,
                Ok(Message::Close(_)) => return Err(Over),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Over),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Over> {
        let (conn, shared) = (self.conn, self.shared);
        let events = match self.link.receive(bytes, &mut OsRng) {
            Ok(events) => events,
            Err(error) => {
                let now = shared.now();
                shared.service(Some(conn), |service| service.protocol_error(conn, &error.to_string(), now));
                return Err(Over);
            }
        };
        for event in events {
            match event {
                LinkEvent::Reply(bytes) => {
                    queued(self.socket.write(Message::binary(bytes)))?;
                    self.flush()?;
                }
                LinkEvent::Login(login) => {
                    let now = shared.now();
                    shared.service(Some(conn), |service| service.connected(conn, *login, now));
                }
                LinkEvent::Node(node) => {
                    let now = shared.now();
                    shared.service(Some(conn), |service| service.handle_node(conn, node, now));
                }
            }
        }
        Ok(())
    }
}

/// A message the socket could not take at once is buffered, not lost.
fn queued(result: tungstenite::Result<()>) -> Result<(), Over> {
    match result {
        Ok(()) => Ok(()),
        Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(_) => Err(Over),
    }
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// A thousand connections should not cost more than their threads.
const READ_BUFFER: usize = 4 * 1024;
const WRITE_BUFFER: usize = 16 * 1024;

/// No client sends a stanza near this.
const MAX_MESSAGE: usize = 4 << 20;
