//! The binary stanza codec: [`Node`] trees and their wire form.
//!
//! [`node`] is the tree and its builder. `encode`, `decode`, `tokens` are the wire form (dictionary version 3).

pub mod node;

pub use node::{Attrs, Content, Node, Value};
