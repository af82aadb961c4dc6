//! The service on a bench: phones that are real, companions that can be made to do anything.

mod bench;
mod companions;
mod phones;
mod strict;
