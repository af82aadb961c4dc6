//! What the program can do besides running a worker: its subcommands, one file each.
//!
//! A new one is a file with a [`Subcommand`] in it and a line in [`SUBCOMMANDS`]; `main` finds it by its first word
//! and `--help` lists it.

mod doctor;
mod rotate_key;
mod transfer;

use std::{io::Write as _, process::ExitCode};

/// The process environment as text.
pub type Variables = Vec<(String, String)>;

/// One subcommand.
pub struct Subcommand {
    /// First argument.
    pub name: &'static str,
    /// What may follow it, as `--help` shows it.
    pub usage: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// Runs it with the arguments behind its name. `Err` is a mistake in the arguments.
    pub run: fn(&[String], Variables) -> Result<ExitCode, String>,
}

/// All of them, in the order `--help` lists them.
pub const SUBCOMMANDS: &[Subcommand] =
    &[doctor::SUBCOMMAND, rotate_key::SUBCOMMAND, transfer::IMPORT, transfer::EXPORT];

/// Prints to standard output. A reader that has gone (`| head`) is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
