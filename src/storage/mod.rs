//! What is kept, and the promise that what was acknowledged is durable.
//!
//! [`local`] is the store on this machine: one SQLite file, written by one thread that commits the batches of many
//! sessions together; [`events`] is the JSON of its event log. [`object`] is the durable home: whole objects in
//! a folder or in a bucket. [`seal`] encrypts what rests in either. Nothing here knows threads of sessions or HTTP.

pub mod baileys;
pub mod events;
pub mod local;
pub mod object;
pub mod seal;
pub mod sync;
