//! The account of a session becomes a folder that Baileys goes on with.

use super::{
    super::{
        layout,
        lease::{self, Found, State},
    },
    Place, Summary, Transfer, TransferError,
    hold::{Hold, check_free},
    place::Contents,
};
use crate::storage::baileys::{Folder, ForSix, Freshness, Rewritten, for_six, rewrite};

/// Which Baileys goes on with the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// 6.7: one name for phone numbers and LIDs.
    Six,
    /// 7.
    Seven,
}

impl Transfer<'_> {
    /// Writes the account of the session `id` to `target`, which must be empty. After an owner that stopped in order the
    /// files are those of the session, byte by byte; after any other they are written anew, so that no key is used
    /// twice.
    ///
    /// # Errors
    /// [`TransferError`]; with [`TransferError::Lost`] and those of writing a part may be written.
    pub fn export(&self, id: &str, target: &Place, release: Release) -> Result<Summary, TransferError> {
        let found = lease::read(self.store, id)?;
        check_free(&found)?;
        let source = Place::Objects(layout::auth(id));
        if !target.is_empty(self.store)? || *target == source {
            return Err(TransferError::NotEmpty(target.to_string()));
        }
        let Contents { files, unread } = match source.read(self.store) {
            Err(TransferError::Missing(_)) => {
                return Err(TransferError::Missing(format!("account of session {id}")));
            }
            read => read?,
        };
        let freshness = self.freshness(id, &found)?;
        let Rewritten { account, report, files: rewritten } =
            rewrite(&files, freshness).map_err(TransferError::Rewrite)?;
        let mut summary = Summary::new(&account, report, unread);
        let mut files = match freshness {
            Freshness::Clean => {
                summary.changes.clear();
                files
            }
            Freshness::Stale => {
                summary.changes.insert(0, NOT_IN_ORDER.to_owned());
                rewritten
            }
        };
        if release == Release::Six {
            files = named_for_six(files, &mut summary);
        }
        summary.files = files.len();
        if !self.dry_run {
            self.write_folder(id, &found, target, files)?;
        }
        Ok(summary)
    }

    /// Whether the last owner of the session stopped in order, after everything was written.
    fn freshness(&self, id: &str, found: &Found) -> Result<Freshness, TransferError> {
        let Found::Lease(lease, _) = found else {
            // Only Baileys was here.
            return Ok(if matches!(found, Found::None) { Freshness::Clean } else { Freshness::Stale });
        };
        let creds = self.store.get(&format!("{}{}", layout::auth(id), layout::CREDS))?;
        let untouched = creds.map(|creds| creds.version.as_str().to_owned()) == lease.creds;
        let is_clean = lease.state == State::Released && lease.clean && untouched;
        Ok(if is_clean { Freshness::Clean } else { Freshness::Stale })
    }

    fn write_folder(
        &self,
        id: &str,
        found: &Found,
        target: &Place,
        mut files: Folder,
    ) -> Result<(), TransferError> {
        let mut hold = Hold::take(self.store, id, &self.holder, found)?;
        target.prepare()?;
        let creds = files.remove_entry(layout::CREDS);
        for (name, bytes) in files.into_iter().chain(creds) {
            hold.keep()?;
            target.write(self.store, &name, &bytes)?;
        }
        hold.release()
    }
}

fn named_for_six(files: Folder, summary: &mut Summary) -> Folder {
    let ForSix { files, renamed, unread, closed } = for_six(files);
    for (count, what) in [
        (renamed, "files get the names of Baileys 6"),
        (unread, "files that only Baileys 7 reads are left out"),
        (closed, "sessions that cannot be sent on are left out; what arrives on them is asked for again"),
    ] {
        if count > 0 {
            summary.changes.push(format!("{count} {what}"));
        }
    }
    files
}

/// Said first, for it may be news.
const NOT_IN_ORDER: &str = "the last owner did not release the session: what it had not uploaded is missing, and every sending key is new";
