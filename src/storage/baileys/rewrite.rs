//! A folder read and written again without a store in between: what is handed on when its last owner did not stop in
//! order.

use std::collections::BTreeMap;

use super::{
    Folder, Freshness, LoadError, Loaded, RenderError, Report,
    name::{CREDS, FileName},
    names, render,
};
use crate::whatsapp::{
    jid::Jid,
    model::MessageRecord,
    state::{ReadError, StateRead, Table, Write},
};

/// A folder that was written again.
#[derive(Debug)]
pub struct Rewritten {
    /// Whose it is: the phone number's JID.
    pub account: Jid,
    /// What was found and what is different now.
    pub report: Report,
    /// The files, those of unknown names included.
    pub files: Folder,
}

/// A folder cannot be written again.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// There is no usable account in it.
    #[error("there is no account that can be used")]
    Load(#[source] LoadError),
    /// A file cannot be made of what was read.
    #[error("a file cannot be written")]
    Render(#[source] RenderError),
}

/// Reads a folder and writes it again.
///
/// # Errors
/// [`RewriteError`]
pub fn rewrite(folder: &Folder, freshness: Freshness) -> Result<Rewritten, RewriteError> {
    let Loaded { account, writes, report, .. } =
        super::load(folder.clone().into_iter(), freshness).map_err(RewriteError::Load)?;
    let rows = Rows::from(writes);
    let mut files = Folder::new();
    for name in names(&rows).map_err(RewriteError::Render)? {
        if let Some(bytes) = render(&name, &rows).map_err(RewriteError::Render)? {
            files.insert(name.to_string(), bytes);
        }
    }
    let kept = report.kept.iter().filter_map(|name| Some((name.clone(), folder.get(name)?.clone())));
    files.extend(kept);
    Ok(Rewritten { account, report, files })
}

/// Whose folder it is, by its credentials alone.
pub(crate) fn account_of(creds: &[u8]) -> Result<Jid, LoadError> {
    let alone = std::iter::once((CREDS.to_owned(), creds.to_vec()));
    super::load(alone, Freshness::Stale).map(|loaded| loaded.account)
}

/// Whether a file holds a part of the account: written, replaced and removed with it.
pub(crate) fn is_known(name: &str) -> bool {
    FileName::parse(name).is_some() && super::name::Kind::of(name).is_some()
}

/// State rows that were just loaded.
struct Rows(BTreeMap<(Table, String), Vec<u8>>);

impl From<Vec<Write>> for Rows {
    fn from(writes: Vec<Write>) -> Self {
        let put = |write| match write {
            Write::Put(table, key, value) => Some(((table, key), value)),
            Write::Delete(..)
            | Write::Clear(_)
            | Write::Message(_)
            | Write::Status { .. }
            | Write::Event(_) => None,
        };
        Self(writes.into_iter().filter_map(put).collect())
    }
}

impl StateRead for Rows {
    fn get(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.0.get(&(table, key.to_owned())).cloned())
    }

    fn keys(&self, table: Table, prefix: &str) -> Result<Vec<String>, ReadError> {
        let keys = self.0.keys().filter(|(other, key)| *other == table && key.starts_with(prefix));
        Ok(keys.map(|(_, key)| key.clone()).collect())
    }

    fn message(&self, _: &Jid, _: &str, _: Option<&Jid>) -> Result<Option<MessageRecord>, ReadError> {
        Ok(None)
    }

    fn pending_messages(&self) -> Result<Vec<MessageRecord>, ReadError> {
        Ok(Vec::new())
    }
}
