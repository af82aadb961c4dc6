//! End-to-end encryption: Signal protocol version 3 as WhatsApp speaks it.
//!
//! Calculates on bytes and records. Knows nothing of stanzas, of where records are kept, of protobuf `Message`s and
//! their padding, and of time: callers hand in keys, records and randomness, and get bytes and changed records back.
//!
//! - [`session`]: one-to-one. [`session::SessionRecord`] sets up sessions (X3DH) and runs the double ratchet.
//! - [`sender_key`]: groups. [`sender_key::SenderKeyRecord`] is one sender's chain in one group.
//! - [`prekey`], [`bundle`]: the keys a device publishes, and what is fetched of a peer's.
//! - [`adv`]: signatures that tie companion devices to their account.
//! - [`curve`]: XEdDSA signatures. [`address`]: under which name records are stored.
//!
//! A record may be used between two writes to disk without ever using a message key twice: see [`session`].

pub mod address;
pub mod adv;
pub mod bundle;
pub mod curve;
pub mod error;
pub mod prekey;
pub mod sender_key;
pub mod session;

mod chain;
mod cipher;
mod limits;
mod state;
mod stored;
mod wire;
mod x3dh;

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod vectors;

pub use address::Address;
pub use bundle::PreKeyBundle;
pub use error::SignalError;
pub use prekey::{PreKeyRecord, SignedPreKeyRecord};
pub use sender_key::{GroupDecrypted, GroupEncrypted, SenderKeyRecord};
pub use session::{CiphertextKind, Decrypted, Encrypted, LocalIdentity, PreKeySource, SessionRecord};
