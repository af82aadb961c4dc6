//! Reading URLs, and real connections to a TLS websocket server on loopback.

mod proxied;

use std::{
    net::TcpListener,
    os::fd::AsFd,
    sync::Arc,
    thread::{self, JoinHandle},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, pem::PemObject},
};
use tungstenite::{Message, WebSocket};

use super::*;

type Served = WebSocket<StreamOwned<ServerConnection, TcpStream>>;

/// A server for one connection, and how to reach it.
fn serve<T: Send + 'static>(
    talk: impl FnOnce(Served) -> T + Send + 'static,
) -> (Target, JoinHandle<T>, tempfile::TempDir) {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), certified.cert.pem()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(certified.signing_key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("wss://{}/ws/chat", listener.local_addr().unwrap());
    let target = Target::new(&url, Some(&dir.path().join("ca.pem")), None).unwrap();
    let server = thread::spawn(move || {
        let (tcp, _) = listener.accept().unwrap();
        let tls = ServerConnection::new(Arc::new(config)).unwrap();
        talk(tungstenite::accept(StreamOwned::new(tls, tcp)).unwrap())
    });
    (target, server, dir)
}

/// Waits for the socket as the session's loop does.
fn wait(connection: &Connection, flags: PollFlags) {
    let mut fds = [PollFd::from_borrowed_fd(connection.as_fd(), flags)];
    let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
    assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1, "nothing happens on the socket");
}

/// Reads until `enough` bytes came.
fn read(connection: &mut Connection, enough: usize) -> Vec<u8> {
    let mut data = Vec::new();
    while data.len() < enough {
        let more = connection.read(|bytes| data.extend_from_slice(bytes)).unwrap();
        if !more && data.len() < enough {
            wait(connection, PollFlags::IN);
        }
    }
    data
}

#[test]
fn messages_of_every_size_pass_both_ways_with_pings_between() {
    const SIZES: [usize; 4] = [1, 4_000, 70_000, 1_500_000];
    let (target, server, _dir) = serve(|mut served| {
        // Behind the answer to the upgrade, perhaps in the same packet.
        served.send(Message::Binary(b"first".to_vec().into())).unwrap();
        for size in SIZES {
            served.send(Message::Ping(b"ping".to_vec().into())).unwrap();
            // The answer to the ping may come before or behind the payload.
            let mut both = [served.read().unwrap(), served.read().unwrap()];
            both.sort_by_key(Message::is_pong);
            let [message, pong] = both;
            assert!(matches!(&message, Message::Binary(bytes) if bytes.len() == size), "{size}");
            assert_eq!(pong, Message::Pong(b"ping".to_vec().into()));
            served.send(message).unwrap();
        }
        assert!(matches!(served.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 1001));
    });
    let mut connection = target.dial().unwrap();
    assert_eq!(read(&mut connection, 5), b"first");
    for size in SIZES {
        let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        connection.send(&payload);
        let mut back = Vec::new();
        while back.len() < size || connection.wants_write() {
            connection.flush().unwrap();
            let more = connection.read(|bytes| back.extend_from_slice(bytes)).unwrap();
            if connection.wants_write() {
                wait(&connection, PollFlags::IN | PollFlags::OUT);
            } else if !more && back.len() < size {
                wait(&connection, PollFlags::IN);
            }
        }
        assert_eq!(back, payload);
    }
    connection.close();
    server.join().unwrap();
}

#[test]
fn a_server_that_does_not_read_chokes_the_connection_and_blocks_nobody() {
    let (read_now, wait_for_it) = std::sync::mpsc::channel::<()>();
    let (target, server, _dir) = serve(move |mut served| {
        wait_for_it.recv().unwrap();
        let mut total = 0;
        while let Ok(Message::Binary(bytes)) = served.read() {
            total += bytes.len();
        }
        total
    });
    let mut connection = target.dial().unwrap();
    let mut sent = 0;
    while !connection.is_choked() {
        connection.send(&[7; 100_000]);
        sent += 100_000;
        connection.flush().unwrap();
        assert!(sent < 100_000_000, "the socket takes everything");
    }
    assert!(connection.wants_write());
    read_now.send(()).unwrap();
    while connection.wants_write() {
        wait(&connection, PollFlags::OUT);
        connection.flush().unwrap();
    }
    assert!(!connection.is_choked());
    connection.close();
    assert_eq!(server.join().unwrap(), sent);
}

#[test]
fn the_end_of_a_connection_is_told_once_everything_before_it_was_read() {
    let (target, server, _dir) = serve(|mut served| {
        served.send(Message::Binary(b"last words".to_vec().into())).unwrap();
        served.close(None).unwrap();
        served.flush().ok();
    });
    let mut connection = target.dial().unwrap();
    let mut data = Vec::new();
    let end = loop {
        match connection.read(|bytes| data.extend_from_slice(bytes)) {
            Ok(true) => {}
            Ok(false) => wait(&connection, PollFlags::IN),
            Err(error) => break error,
        }
    };
    assert_eq!(data, b"last words");
    assert_eq!(end.to_string(), "the server closed the connection");
    server.join().unwrap();
}

#[test]
fn a_server_that_says_nothing_is_given_up_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::new(&format!("wss://{}/", listener.local_addr().unwrap()), None, None).unwrap();
    let begun = Instant::now();
    let error = target.dial_until(begun + Duration::from_millis(200)).map(drop).unwrap_err();
    assert!(matches!(error, DialError::Io(_)), "{error}");
    assert!((200..5_000).contains(&begun.elapsed().as_millis()));
}

#[test]
fn addresses_of_both_families_are_tried_by_turns() {
    let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
    let mixed = by_turns(parse(&["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"]));
    assert_eq!(mixed, parse(&["[::1]:1", "127.0.0.1:1", "[::2]:1", "[::3]:1"]));
    let mixed = by_turns(parse(&["127.0.0.1:1", "[::1]:1", "[::2]:1"]));
    assert_eq!(mixed, parse(&["127.0.0.1:1", "[::1]:1", "[::2]:1"]));
    assert!(by_turns(Vec::new()).is_empty());
}

#[test]
fn urls_are_read_or_refused_with_their_text() {
    let target = Target::new("wss://web.whatsapp.com/ws/chat", None, None).unwrap();
    assert_eq!(
        (target.host.as_str(), target.port, target.path.as_str()),
        ("web.whatsapp.com", 443, "/ws/chat")
    );
    let target = Target::new("wss://127.0.0.1:4443", None, None).unwrap();
    assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("127.0.0.1", 4443, "/"));
    let target = Target::new("wss://[::1]:4443/x", None, None).unwrap();
    assert_eq!((target.host.as_str(), target.port), ("::1", 4443));
    for bad in ["ws://h/", "wss://", "wss://h:0/", "wss://h:x/", "wss://u@h/", "wss://a:b:1/", "wss://h/a b"]
    {
        let error = Target::new(bad, None, None).map(drop).unwrap_err();
        assert!(error.contains(bad), "{error}");
    }
}

#[test]
fn a_ca_file_without_certificates_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Target::new("wss://h/", Some(file.path()), None).map(drop).unwrap_err();
    assert!(error.contains("no certificate"), "{error}");
    assert!(Target::new("wss://h/", Some(Path::new("/nonexistent/ca.pem")), None).is_err());
}
