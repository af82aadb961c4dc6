//! A small, synchronous HTTP/1.1 server: requests in, responses out, one handler function.
//!
//! It knows nothing of sessions or WhatsApp. The worker's API and the sandbox's control API both run on it.
//! [`HttpServer::start`] is the way in; the handler sees a whole [`Request`] and answers with a whole [`Response`].

mod lane;
mod message;
mod private_dir;
mod server;

pub use message::{Request, Response, Target};
pub(crate) use private_dir::PrivateDir;
pub use server::{Handler, HttpError, HttpOptions, HttpServer};
