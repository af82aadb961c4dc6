//! Stored rows that other programs keep too: what storage needs to write them in another format.
//!
//! Sessions and sender keys are read with `SessionRecord` and `SenderKeyRecord` and their `parts`.

pub(crate) use super::{
    contacts::{DeviceRecord, TokenRecord},
    groups::MarksRecord,
    pairing::Credentials,
};
