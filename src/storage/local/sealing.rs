//! Encryption of the engine's state in the local store: keys, ratchets, everything of the table `state`.
//!
//! A value is sealed when it is written and opened when it is read, so neither SQLite's files nor the journal ever have
//! it in plain. History and events are not sealed: messages are as private as the disk they lie on.
//!
//! [`bring_under`] is for a start with another key than the last one, also with the first or with none any more.

use rusqlite::{Connection, OptionalExtension, params};

use super::{StoreError, journal::Journal, records};
use crate::storage::seal::{KeyRing, Sealing};

/// What a value is bound to: copied to another row it does not open.
pub(super) fn name(session: i64, table: u8, key: &str) -> String {
    format!("state/{session}/{table}/{key}")
}

/// Rewrites every value that is not under the ring's current key, then removes what the old ones left behind in the
/// files. What was done is remembered, so that the next start with the same key has nothing to look at. The journal must
/// be empty.
pub(super) fn bring_under(
    keys: &KeyRing,
    conn: &mut Connection,
    journal: &mut Journal,
) -> Result<(), StoreError> {
    let sql = |error: rusqlite::Error| records::store_error(&error);
    let wanted = keys.current_id().map_or_else(|| PLAIN.to_owned(), |id| id.to_string());
    let found: Option<String> = conn
        .query_row("SELECT value FROM meta WHERE key = 'sealed'", [], |row| row.get(0))
        .optional()
        .map_err(sql)?;
    if found.as_deref().unwrap_or(PLAIN) == wanted {
        return Ok(());
    }
    let rewritten = rewrite(keys, conn)?;
    if rewritten > 0 {
        conn.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);").map_err(sql)?;
        journal.wipe().map_err(|error| StoreError::Io(format!("the journal: {error}")))?;
        log::info!("local store: {rewritten} values brought under key {wanted}");
    }
    conn.execute(
        "INSERT INTO meta (key, value) VALUES ('sealed', ?1) ON CONFLICT DO UPDATE SET value = excluded.value",
        [wanted],
    )
    .map_err(sql)?;
    Ok(())
}

/// All or nothing; how many were rewritten.
fn rewrite(keys: &KeyRing, conn: &mut Connection) -> Result<usize, StoreError> {
    let sql = |error: rusqlite::Error| records::store_error(&error);
    let wanted = keys.current_id().map_or(Sealing::Plain, Sealing::Under);
    let tx = conn.transaction().map_err(sql)?;
    let mut rewritten = 0;
    let mut last = (i64::MIN, 0u8, String::new());
    loop {
        let rows = page(&tx, &last).map_err(sql)?;
        let Some((session, table, key, _)) = rows.last() else { break };
        last = (*session, *table, key.clone());
        for (session, table, key, stored) in rows {
            let name = name(session, table, &key);
            let (value, sealing) = keys.open(&name, stored).map_err(StoreError::Sealed)?;
            if sealing != wanted {
                tx.prepare_cached("UPDATE state SET value = ?4 WHERE session = ?1 AND tbl = ?2 AND key = ?3")
                    .and_then(|mut update| {
                        update.execute(params![session, table, key, keys.seal(&name, &value)])
                    })
                    .map_err(sql)?;
                rewritten += 1;
            }
        }
    }
    tx.commit().map_err(sql)?;
    Ok(rewritten)
}

type Row = (i64, u8, String, Vec<u8>);

/// The next rows behind one.
fn page(conn: &Connection, last: &(i64, u8, String)) -> rusqlite::Result<Vec<Row>> {
    let mut select = conn.prepare_cached(
        "SELECT session, tbl, key, value FROM state WHERE (session, tbl, key) > (?1, ?2, ?3)
         ORDER BY session, tbl, key LIMIT 200",
    )?;
    let rows = select.query_map(params![last.0, last.1, last.2], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    })?;
    rows.collect()
}

/// Stands for no key.
const PLAIN: &str = "plain";
