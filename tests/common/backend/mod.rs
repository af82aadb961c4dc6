//! Backends to test against, written from texts and not from the worker's code: [`guide`] from the integration guide,
//! [`whatsam`] from what is known of the public backend. Both keep every request with the time it came, refuse what
//! their text does not allow, remember what they refused, and can be told to misbehave.

pub mod guide;
pub mod rules;
pub mod server;
pub mod signature;
pub mod whatsam;

use std::{
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// What both backends ask for.
pub const TOKEN: &str = "token-of-worker-and-backend";

/// A free port of 127.0.0.1 that no outgoing connection gets: below the range the system takes those from. Test programs
/// that run side by side begin a hundred ports apart, most of them.
pub fn own_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 110 * 100).expect("below 11,000");
    (0..11_000)
        .map(|_| 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 11_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of 11,000 ports is free")
}

pub fn own_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], own_port()))
}
