//! A folder becomes the account of a session.

use std::collections::BTreeSet;

use super::{
    super::{
        layout,
        lease::{self, Found},
        session_data::SessionData,
    },
    Place, Summary, Transfer, TransferError,
    hold::{Hold, check_free},
    phone,
    place::Contents,
};
use crate::storage::baileys::{self, Freshness, account_of, is_known};

impl Transfer<'_> {
    /// Copies the files of `source` into the session `id`, exactly as they are; a worker reads them when it takes the
    /// session. Files of the same account that are there and not in the source go; files of unknown names stay.
    /// `user`: whose session it is, when the object store does not know it.
    ///
    /// # Errors
    /// [`TransferError`]; with [`TransferError::Lost`] and those of writing a part may be written.
    pub fn import(&self, source: &Place, id: &str, user: Option<&str>) -> Result<Summary, TransferError> {
        let target = Place::Objects(layout::auth(id));
        if *source == target {
            return Err(TransferError::SamePlace);
        }
        let Contents { files, unread } = source.read(self.store)?;
        let loaded =
            baileys::load(files.clone().into_iter(), Freshness::Stale).map_err(TransferError::NoAccount)?;
        let mut summary = Summary::new(&loaded.account, loaded.report, unread);
        let found = lease::read(self.store, id)?;
        check_free(&found)?;
        self.check_session(id, &summary.phone)?;
        let new_data = self.new_data(id, user, &summary.phone)?;
        let gone = self.superseded(id, &files.keys().map(String::as_str).collect())?;
        if !gone.is_empty() {
            summary
                .changes
                .push(format!("{} files that the session has are removed or replaced", gone.len()));
        }
        summary.files = files.len();
        if !self.dry_run {
            self.write_account(id, &found, &target, files, gone)?;
            if let Some(data) = new_data {
                self.store.put(&layout::data(id), &data, "application/json")?;
            }
        }
        Ok(summary)
    }

    /// A session that has an account keeps it.
    fn check_session(&self, id: &str, found: &str) -> Result<(), TransferError> {
        let creds = self.store.get(&format!("{}{}", layout::auth(id), layout::CREDS))?;
        let Some(creds) = creds else { return Ok(()) };
        let stored = phone(&account_of(&creds.bytes).map_err(TransferError::StoredAccount)?);
        if stored == found {
            return Ok(());
        }
        Err(TransferError::OtherAccount { stored, found: found.to_owned() })
    }

    /// What is written beside the account of a session that the object store does not know.
    fn new_data(&self, id: &str, user: Option<&str>, phone: &str) -> Result<Option<Vec<u8>>, TransferError> {
        let stored = self.store.get(&layout::data(id))?;
        let stored = stored.and_then(|object| SessionData::decode(&object.bytes));
        match (stored, user) {
            (Some(data), Some(user)) if data.user_id != user => Err(TransferError::OtherUser),
            (Some(_), _) | (None, None) => Ok(None),
            (None, Some(user)) => Ok(Some(SessionData::imported(id, user, phone).to_bytes())),
        }
    }

    /// Objects of the account that the source does not have.
    fn superseded(&self, id: &str, names: &BTreeSet<&str>) -> Result<Vec<String>, TransferError> {
        let folder = layout::auth(id);
        let objects = self.store.list(&folder)?;
        let is_gone = |key: &str| {
            let name = key.strip_prefix(&folder);
            name.is_some_and(|name| is_known(name) && !names.contains(name))
        };
        Ok(objects.into_iter().map(|object| object.key).filter(|key| is_gone(key)).collect())
    }

    fn write_account(
        &self,
        id: &str,
        found: &Found,
        target: &Place,
        mut files: baileys::Folder,
        gone: Vec<String>,
    ) -> Result<(), TransferError> {
        let mut hold = Hold::take(self.store, id, &self.holder, found)?;
        let creds = files.remove_entry(layout::CREDS);
        for key in gone {
            hold.keep()?;
            self.store.delete(&key)?;
        }
        for (name, bytes) in files.into_iter().chain(creds) {
            hold.keep()?;
            target.write(self.store, &name, &bytes)?;
        }
        hold.release()
    }
}
