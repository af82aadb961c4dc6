//! Trying a store at start: every verb, and whether it keeps conditions, also when eight ask at once.
//!
//! Works under `temp/self-test/<random>/` and removes what it wrote.

use std::thread;

use rand_core::{OsRng, RngCore as _};

use super::{Condition, ObjectError, ObjectStore, Version};

/// Whether conditional writes are safe to build ownership on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditions {
    /// Every one was kept.
    Enforced,
    /// One was not: two workers on this store could both own a session.
    Ignored {
        /// Which.
        how: &'static str,
    },
}

/// Writes, reads, lists, deletes, and proves that conditional writes are kept.
///
/// # Errors
/// [`ObjectError`] in one line: what does not work, and what to do.
pub fn self_test(store: &dyn ObjectStore) -> Result<Conditions, ObjectError> {
    let folder = format!("temp/self-test/{:016x}", OsRng.next_u64());
    let trial = Trial { store, folder };
    let result = trial.verbs().and_then(|()| trial.conditions());
    let swept = trial.sweep();
    let conditions = result?;
    swept?;
    Ok(conditions)
}

struct Trial<'a> {
    store: &'a dyn ObjectStore,
    folder: String,
}

impl Trial<'_> {
    fn verbs(&self) -> Result<(), ObjectError> {
        let key = self.key("object");
        let mut content = vec![0u8; 1000];
        OsRng.fill_bytes(&mut content);
        self.store.put(&key, b"first", "text/plain")?;
        let version = self.store.put(&key, &content, "application/octet-stream")?;
        let Some(object) = self.store.get(&key)? else {
            return Err(self.wrong("does not find what was written"));
        };
        if object.bytes != content {
            return Err(self.wrong("gives other bytes than were written"));
        }
        if object.version != version {
            return Err(self.wrong("gives another version (ETag) when reading than when writing"));
        }
        let listed = self.store.list(&format!("{}/", self.folder))?;
        let [only] = listed.as_slice() else { return Err(self.wrong("does not list what was written")) };
        if only.key != key || only.version != version {
            return Err(self.wrong("lists another key or version than was written"));
        }
        self.store.delete(&key)?;
        self.store.delete(&key)?;
        if self.store.get(&key)?.is_some() {
            return Err(self.wrong("still has what was deleted"));
        }
        Ok(())
    }

    fn conditions(&self) -> Result<Conditions, ObjectError> {
        let ignored = |how| Ok(Conditions::Ignored { how });
        let key = self.key("condition");
        let Some(first) = self.put_if(&key, b"1", &Condition::Absent)? else {
            return ignored("a new object is refused although there is none");
        };
        if self.put_if(&key, b"2", &Condition::Absent)?.is_some() {
            return ignored("If-None-Match: * overwrites an object that is there");
        }
        let Some(second) = self.put_if(&key, b"3", &Condition::Is(first.clone()))? else {
            return ignored("If-Match with the right ETag is refused");
        };
        if self.put_if(&key, b"4", &Condition::Is(first.clone()))?.is_some() {
            return ignored("If-Match with an old ETag overwrites a newer object");
        }
        if self.put_if(&self.key("missing"), b"5", &Condition::Is(first))?.is_some() {
            return ignored("If-Match writes an object that is missing");
        }
        let mut holder = second;
        for round in 0..RACES {
            if self.race(&self.key(&format!("race-{round}")), &Condition::Absent)?.is_none() {
                return ignored("of eight who wrote with If-None-Match: * at once, not exactly one won");
            }
            match self.race(&key, &Condition::Is(holder))? {
                Some(version) => holder = version,
                None => return ignored("of eight who wrote with If-Match at once, not exactly one won"),
            }
        }
        Ok(Conditions::Enforced)
    }

    /// Eight try the same; the version of the one that won, when exactly one did and its object is the one that stayed.
    fn race(&self, key: &str, condition: &Condition) -> Result<Option<Version>, ObjectError> {
        let results: Vec<_> = thread::scope(|scope| {
            let racers: Vec<_> = (0..RACERS)
                .map(|racer| {
                    let content = format!("racer {racer} {:016x}", OsRng.next_u64());
                    scope.spawn(move || self.put_if(key, content.as_bytes(), condition))
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().expect("a racer does not panic")).collect()
        });
        let results: Vec<Option<Version>> = results.into_iter().collect::<Result<_, _>>()?;
        let mut winners = results.into_iter().flatten();
        let (Some(winner), None) = (winners.next(), winners.next()) else { return Ok(None) };
        let stayed = self.store.get(key)?;
        Ok(stayed.is_some_and(|object| object.version == winner).then_some(winner))
    }

    fn put_if(&self, key: &str, bytes: &[u8], condition: &Condition) -> Result<Option<Version>, ObjectError> {
        self.store.put_if(key, bytes, condition)
    }

    fn sweep(&self) -> Result<(), ObjectError> {
        for info in self.store.list(&format!("{}/", self.folder))? {
            self.store.delete(&info.key)?;
        }
        Ok(())
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    fn wrong(&self, problem: &str) -> ObjectError {
        ObjectError::Other { place: self.store.place(), problem: format!("{problem}; it cannot be used") }
    }
}

/// Stores that check and write in two steps were seen to let 2 to 8 of 8 win, in most rounds.
const RACES: usize = 3;
const RACERS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::object::{Place, memory::MemoryObjects};

    #[test]
    fn a_good_store_passes_and_nothing_is_left_in_it() {
        let store = MemoryObjects::default();
        assert_eq!(self_test(&store).unwrap(), Conditions::Enforced);
        assert!(store.list("").unwrap().is_empty());
    }

    #[test]
    fn a_broken_store_fails_with_its_own_error() {
        let store = MemoryObjects::default();
        store.set_fault(Some(|place: Place| ObjectError::Full { place, problem: "quota".to_owned() }));
        assert!(matches!(self_test(&store), Err(ObjectError::Full { .. })));
    }
}
