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
//!
//! Start with `name`: which row lives in which file. `loader` and `renderer` are the two directions, one file per kind
//! of content below them; `people` tells phone numbers and LIDs apart; `json` is how Baileys writes binary values.
//! `rewrite` is both directions in one step, `six` the names of Baileys 6.

mod app_state;
mod creds;
mod identity;
mod json;
mod loader;
mod name;
mod people;
mod prekey;
mod renderer;
mod rewrite;
mod sender_key;
mod session;
mod six;
mod token;
mod worker;

use std::collections::BTreeMap;

pub use creds::CredsError;
pub use json::FileError;
pub use name::{FileName, files_of};
pub use rewrite::{RewriteError, Rewritten, rewrite};
pub(crate) use rewrite::{account_of, is_known};
pub use six::{ForSix, for_six};

use crate::whatsapp::{
    jid::Jid,
    state::{ReadError, StateRead, Write},
};

/// A folder: the content of its files by their names.
pub type Folder = BTreeMap<String, Vec<u8>>;

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
    /// The account: the phone number's JID.
    pub account: Jid,
    /// Its LID, when the folder says it.
    pub lid: Option<Jid>,
    /// Its own display name.
    pub name: Option<String>,
    /// The whole account: empties every table, then fills it.
    pub writes: Vec<Write>,
    /// What was found and what was made of it.
    pub report: Report,
    /// Files whose content lives on under another name (sessions under a phone number whose LID is known; LID sessions
    /// of Baileys 6, which drops the server): to be deleted once the rows are stored and their own files written.
    pub superseded: Vec<String>,
}

/// What loading a folder found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Files taken, by kind: `pre-key`, `session`, `sender-key`, ….
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
    /// The credentials are damaged, or not those of a linked device.
    #[error("creds.json cannot be used")]
    Creds(#[source] CredsError),
    /// More or larger files than any account has.
    #[error("the folder is too large to be one account")]
    TooLarge,
}

/// A file could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The local store failed.
    #[error("cannot render {0}")]
    Read(FileName, #[source] ReadError),
    /// A row it is made of cannot be read. The file that is there stays.
    #[error("cannot render {0}: a row it is made of is damaged")]
    Damaged(FileName),
    /// No row lives in a file of this name: it is not ours to write or delete.
    #[error("{0} is not a file this program writes")]
    NotOurs(FileName),
}

/// The bytes a file must have now; `None` when it must not exist.
///
/// # Errors
/// [`RenderError`]; the file that is there must stay then.
pub fn render(name: &FileName, state: &dyn StateRead) -> Result<Option<Vec<u8>>, RenderError> {
    renderer::Renderer { state, name }.render()
}

/// The names of all files of an account, `creds.json` last: what it is written to completely, in this order. Some of them
/// may render to `None`.
///
/// # Errors
/// [`RenderError::Read`].
pub fn names(state: &dyn StateRead) -> Result<Vec<FileName>, RenderError> {
    renderer::names(state)
}

/// Turns a folder into state rows. Files come in any order; a damaged file costs what it held and is reported, damaged
/// or missing credentials cost the account.
///
/// # Errors
/// [`LoadError`] when there is no usable account in the folder.
pub fn load(
    files: impl Iterator<Item = (String, Vec<u8>)>,
    freshness: Freshness,
) -> Result<Loaded, LoadError> {
    loader::load(files, freshness)
}

#[cfg(test)]
mod tests;
