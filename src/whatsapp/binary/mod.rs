//! The binary stanza codec: [`Node`] trees and their wire form.
//!
//! [`node`] is the tree and its builder. [`encode()`] and [`decode()`] are the wire form, with the token dictionary
//! (version 3) in `dictionary` and its search in `tokens`. Knows nothing about encryption, frames or what stanzas
//! mean.

mod decode;
#[rustfmt::skip]
mod dictionary;
mod encode;
pub mod node;
mod tokens;

pub use decode::{DecodeError, decode};
pub use encode::encode;
pub use node::{Attrs, Content, Node, Value};

#[cfg(test)]
mod tests;
