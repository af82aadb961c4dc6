//! Baileys' multi-file auth state, both ways: a folder that a Baileys 6.7 or 7 left is taken over as it is, and what we
//! write, Baileys 7 loads and goes on with.
//!
//! Calculates on bytes: reads files it is handed, reads state rows through [`StateRead`], gives back rows or files. Knows
//! nothing of directories, object stores, leases, or of when something is written.
//!
//! What Baileys has no file for goes into files whose names begin with `worker-`, so that the folder alone restores the
//! whole account. Files of unknown names are never read and never touched.
//!
//! A rendered file is exact after a clean stop. While a session runs it stands at the reserved bound of its chains (see
//! `whatsapp::signal`), which is always safe to go on from as long as it is the newest version.

mod name;

use std::collections::BTreeMap;

pub use name::{FileName, files_of};

use crate::whatsapp::state::{ReadError, StateRead, Write};

/// How a folder came to be what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Its last owner stopped in order after writing it: chains go on where they are.
    Clean,
    /// Its last owner may have gone on after writing it (crash, lost disk, restored backup): nothing is ever sent on
    /// its sending chains and sender keys again; receiving goes on.
    Stale,
}

/// A folder turned into state rows.
#[derive(Debug)]
pub struct Loaded {
    /// The whole account: empties every table, then fills it.
    pub writes: Vec<Write>,
    /// What was found and what was made of it.
    pub report: Report,
    /// Files whose content lives on under another name (Baileys 6 names sessions differently): to be deleted once the
    /// rows are stored and their own files written.
    pub superseded: Vec<String>,
}

/// What loading a folder found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Values taken, by kind: `pre-key`, `session`, `sender-key`, ….
    pub taken: BTreeMap<&'static str, usize>,
    /// Files that could not be taken, with the reason. Costs what the file held, nothing else.
    pub refused: Vec<(String, String)>,
    /// Files of unknown names and of kinds this program keeps but does not use. Left as they are.
    pub kept: Vec<String>,
    /// What is different after loading, in sentences.
    pub changes: Vec<String>,
}

/// The folder holds no account, or none that can be used. Never answered with a fresh identity: that would cut the
/// phone's link.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no `creds.json`.
    #[error("there is no creds.json")]
    NoCreds,
    /// Being built: nothing is loaded yet.
    #[error("loading Baileys' files is not built yet")]
    Unfinished,
}

/// A file could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The local store failed.
    #[error("cannot render {0}")]
    Read(FileName, #[source] ReadError),
    /// Being built: nothing is rendered yet.
    #[error("rendering Baileys' files is not built yet")]
    Unfinished,
}

/// The bytes a file must have now; `None` when it must not exist.
///
/// # Errors
/// [`RenderError`] when the rows it is made of cannot be read.
pub fn render(_name: &FileName, _state: &dyn StateRead) -> Result<Option<Vec<u8>>, RenderError> {
    Err(RenderError::Unfinished)
}

/// Turns a folder into state rows. Files come in any order; a damaged file costs what it held and is reported, damaged
/// or missing credentials cost the account.
///
/// # Errors
/// [`LoadError`] when there is no usable account in the folder.
pub fn load(
    _files: impl Iterator<Item = (String, Vec<u8>)>,
    _freshness: Freshness,
) -> Result<Loaded, LoadError> {
    Err(LoadError::Unfinished)
}
