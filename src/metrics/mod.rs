//! What the worker counts about itself, and how busy process and machine are.
//!
//! [`Counter`], [`Gauge`] and [`Histogram`] are plain atomics. They live in the struct that counts (a store thread's
//! shared state, the registry, the API), so counting is one relaxed addition: no lock, no lookup, no allocation.
//! [`Exposition`] turns what those structs show into Prometheus text; `api::metrics` is the one place that does so,
//! for `GET /metrics`, and knows every name. `machine` has the figures of `/health`, `process` our own.
//!
//! Nothing here knows sessions, HTTP or storage.

mod exposition;
mod instruments;
mod machine;
mod process;

pub(crate) use exposition::Exposition;
pub(crate) use instruments::{Counter, Gauge, Histogram};
pub(crate) use machine::Load;
pub(crate) use process::ProcessStats;
