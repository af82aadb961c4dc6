//! Accounts that come from a folder of Baileys' files, or go to one, while no worker has them.
//!
//! Both ways hold the session's lease while something is written and leave it released, but never as if its owner had
//! stopped in order: whoever takes the session next starts with new sending keys, because somebody else may go on with
//! the other copy. A dry run reads and reports, and takes no lease.
//!
//! `place` is where a folder can be, `hold` the lease. Knows nothing of arguments or of how a report is shown.

mod export;
mod hold;
mod import;
mod place;

use std::{collections::BTreeMap, io, path::PathBuf};

use super::lease::{self, Holder};
use crate::storage::{
    baileys::{LoadError, Report, RewriteError},
    object::{ObjectError, ObjectStore},
};

pub use export::Release;
pub use place::Place;

/// What both ways need.
pub struct Transfer<'a> {
    store: &'a dyn ObjectStore,
    holder: Holder,
    dry_run: bool,
}

/// What was done, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Phone number of the account, with `+`.
    pub phone: String,
    /// Files that were taken, by kind.
    pub found: BTreeMap<&'static str, usize>,
    /// What is different afterwards, in sentences.
    pub changes: Vec<String>,
    /// Files that cannot be taken, with the reason.
    pub refused: Vec<(String, String)>,
    /// Files this program does not read: carried along as they are.
    pub kept: Vec<String>,
    /// Files the other side has afterwards.
    pub files: usize,
}

/// Nothing was moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A worker has the session.
    #[error(
        "worker {worker} holds the session until {}; release it there (POST /session/{{id}}/release) or stop that worker",
        lease::stamp(*.expires_ms)
    )]
    Held {
        /// Its name.
        worker: String,
        /// Unix milliseconds; later when it renews.
        expires_ms: u64,
    },
    /// Its objects are being removed.
    #[error("the session is being deleted")]
    Deleting,
    /// Somebody was faster, or the lease ran out on the way.
    #[error("another worker took the session meanwhile; what is written so far is incomplete")]
    Lost,
    /// There is nothing to read.
    #[error("there is no {0}")]
    Missing(String),
    /// No account can be read from the files.
    #[error("there is no account that can be used")]
    NoAccount(#[source] LoadError),
    /// The files cannot be written again.
    #[error("the account cannot be written for somebody else")]
    Rewrite(#[source] RewriteError),
    /// The session has an account already.
    #[error(
        "the session has the account {stored} and not {found}; take another id, or delete the session first"
    )]
    OtherAccount {
        /// Phone number that is there.
        stored: String,
        /// Phone number that was to come.
        found: String,
    },
    /// The session has an account that cannot be read.
    #[error("the session has an account that cannot be read; take another id, or delete the session first")]
    StoredAccount(#[source] LoadError),
    /// The session belongs to another user.
    #[error("the session belongs to another user")]
    OtherUser,
    /// There is something at the target; old files must not mix with new ones.
    #[error("{0} is not empty; name a new one")]
    NotEmpty(String),
    /// Source and target are one.
    #[error("the files are there already; POST /session/create and connect take them over")]
    SamePlace,
    /// The object store failed.
    #[error("{0}")]
    Objects(#[from] ObjectError),
    /// A file or folder cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl<'a> Transfer<'a> {
    /// `name`: who is told to others while the lease is held. `dry_run`: nothing is written.
    #[must_use]
    pub fn new(store: &'a dyn ObjectStore, name: &str, instance: &str, dry_run: bool) -> Self {
        let holder = Holder { worker_id: name.to_owned(), instance: instance.to_owned() };
        Self { store, holder, dry_run }
    }
}

impl Summary {
    fn new(account: &crate::whatsapp::jid::Jid, report: Report, unread: Vec<(String, String)>) -> Self {
        let Report { taken, mut refused, kept, changes } = report;
        refused.extend(unread);
        Self { phone: phone(account), found: taken, changes, refused, kept, files: 0 }
    }
}

fn phone(account: &crate::whatsapp::jid::Jid) -> String {
    format!("+{}", account.user)
}

#[cfg(test)]
mod tests;
