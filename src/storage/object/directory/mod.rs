//! Objects as files: one per key, under one folder.
//!
//! A write goes to a file in `.tmp/`, is flushed to the disk, and is renamed to its place; then the folder is flushed.
//! So a reader sees whole objects only, and what was acknowledged survives a power cut. Many objects at once are
//! flushed together, with the whole file system. Checking a condition and renaming happen under an exclusive lock on
//! `.lock`, which holds between threads and between processes on this machine. On a network file system it holds where
//! `flock` does.
//!
//! An object's version is inode, time of writing in nanoseconds and length: a file in `.tmp/` lives beside the file it
//! will replace, so two contents never have both inode and time in common.

mod files;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{
    Condition, NewObject, Object, ObjectError, ObjectInfo, ObjectStore, Place, Version, check_key,
    put_one_by_one, shown,
};
use files::{Stamp, Temporary, info_of, version_of};

/// Objects in a folder of this machine.
pub struct DirectoryStore {
    root: PathBuf,
}

impl DirectoryStore {
    /// Makes the folder when it is missing, for its owner only, and sweeps what writers that died left in `.tmp/`.
    ///
    /// # Errors
    /// [`ObjectError`] when the folder cannot be made or written.
    pub fn open(root: &Path) -> Result<Self, ObjectError> {
        let store = Self { root: root.to_owned() };
        files::make_folder(root)
            .and_then(|()| files::make_folder(&store.temporary()))
            .and_then(|()| files::sweep(&store.temporary()))
            .and_then(|()| store.lock().map(drop))
            .map_err(|error| store.failed(error))?;
        Ok(store)
    }

    fn temporary(&self) -> PathBuf {
        self.root.join(TEMPORARY)
    }

    fn lock(&self) -> io::Result<File> {
        let lock = File::options().create(true).truncate(false).write(true).open(self.root.join(LOCK))?;
        lock.lock()?;
        Ok(lock)
    }

    fn write(
        &self,
        key: &str,
        bytes: &[u8],
        condition: Option<&Condition>,
    ) -> Result<Option<Version>, ObjectError> {
        check_key(key)?;
        self.try_write(key, bytes, condition).map_err(|error| self.failed(error))
    }

    fn try_write(
        &self,
        key: &str,
        bytes: &[u8],
        condition: Option<&Condition>,
    ) -> io::Result<Option<Version>> {
        let path = self.root.join(key);
        let temporary = Temporary::write(&self.temporary(), bytes, Stamp::now(), true)?;
        let lock = self.lock()?;
        if let Some(condition) = condition
            && !is_met(condition, &path)?
        {
            return Ok(None);
        }
        let made_folder = files::make_folders_of(&self.root, key)?;
        let version = temporary.place(&path)?;
        drop(lock);
        files::flush_folders(&self.root, &path, made_folder)?;
        Ok(Some(version))
    }

    fn try_write_all(&self, objects: &[NewObject]) -> io::Result<()> {
        let folder = self.temporary();
        let written =
            objects.iter().map(|object| Temporary::write(&folder, &object.bytes, Stamp::now(), false));
        let written = written.collect::<io::Result<Vec<_>>>()?;
        rustix::fs::syncfs(File::open(&self.root)?)?;
        let lock = self.lock()?;
        let mut changed = BTreeMap::new();
        for (object, temporary) in objects.iter().zip(written) {
            let path = self.root.join(&object.key);
            let made_folder = files::make_folders_of(&self.root, &object.key)?;
            temporary.place(&path)?;
            *changed.entry(path.with_file_name("")).or_default() |= made_folder;
        }
        drop(lock);
        changed.iter().try_for_each(|(folder, made_folder)| {
            files::flush_folders(&self.root, &folder.join(ANY), *made_folder)
        })
    }

    fn try_delete(&self, key: &str) -> io::Result<()> {
        let path = self.root.join(key);
        let lock = self.lock()?;
        match fs::remove_file(&path) {
            Ok(()) => {}
            // Also when a folder on the way is an object: then this is none.
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => return Ok(()),
            Err(error) => return Err(error),
        }
        let left = files::remove_empty_folders(&self.root, &path)?;
        drop(lock);
        match File::open(left).and_then(|folder| folder.sync_all()) {
            Err(error) if is_absent(&error) => Ok(()),
            result => result,
        }
    }

    /// Names the folder, and what an operating system's error means here.
    fn failed(&self, error: io::Error) -> ObjectError {
        use io::ErrorKind as Kind;
        let place = self.place();
        match error.kind() {
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => {
                ObjectError::Full { place, problem: error.to_string() }
            }
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => {
                ObjectError::Denied { place, code: error.to_string() }
            }
            Kind::NotADirectory | Kind::IsADirectory | Kind::DirectoryNotEmpty | Kind::AlreadyExists => {
                ObjectError::Other { place, problem: "a key cannot be a folder of another key".to_owned() }
            }
            _ => ObjectError::Other { place, problem: error.to_string() },
        }
    }
}

impl ObjectStore for DirectoryStore {
    fn get(&self, key: &str) -> Result<Option<Object>, ObjectError> {
        check_key(key)?;
        let mut file = match File::open(self.root.join(key)) {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        let meta = file.metadata().map_err(|error| self.failed(error))?;
        if !meta.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default());
        file.read_to_end(&mut bytes).map_err(|error| self.failed(error))?;
        if bytes.len() as u64 != meta.len() {
            let problem = format!("{} bytes were read of {}", bytes.len(), meta.len());
            return Err(ObjectError::Damaged { key: shown(key), problem });
        }
        Ok(Some(Object { bytes, version: version_of(&meta) }))
    }

    fn put(&self, key: &str, bytes: &[u8], _content_type: &str) -> Result<Version, ObjectError> {
        let written = self.write(key, bytes, None)?;
        Ok(written.expect("without a condition it is always written"))
    }

    fn put_all(&self, objects: &[NewObject]) -> (usize, Result<(), ObjectError>) {
        if objects.len() < MANY {
            return put_one_by_one(self, objects);
        }
        let checked = objects.iter().try_for_each(|object| check_key(&object.key));
        match checked.and_then(|()| self.try_write_all(objects).map_err(|error| self.failed(error))) {
            Ok(()) => (objects.len(), Ok(())),
            Err(error) => (0, Err(error)),
        }
    }

    fn put_if(&self, key: &str, bytes: &[u8], condition: &Condition) -> Result<Option<Version>, ObjectError> {
        self.write(key, bytes, Some(condition))
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        check_key(key)?;
        self.try_delete(key).map_err(|error| self.failed(error))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ObjectError> {
        // The folders that the prefix names in full are the only ones to walk.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        if !folder.is_empty() && check_key(folder).is_err() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        files::walk(&self.root, folder, &mut |key, meta| {
            if key.starts_with(prefix) {
                found.push(info_of(key, meta));
            }
        })
        .map_err(|error| self.failed(error))?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        let folder = prefix.trim_end_matches('/');
        check_key(folder)?;
        let entries = match fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            Err(error) => return Err(self.failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| self.failed(error))?;
            if entry.file_type().map_err(|error| self.failed(error))?.is_dir() {
                names.extend(entry.file_name().into_string().ok());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn place(&self) -> Place {
        Place(self.root.display().to_string())
    }
}

fn is_met(condition: &Condition, path: &Path) -> io::Result<bool> {
    let now = match fs::metadata(path) {
        Ok(meta) if meta.is_file() => Some(version_of(&meta)),
        Ok(_) => None,
        Err(error) if is_absent(&error) => None,
        Err(error) => return Err(error),
    };
    Ok(match condition {
        Condition::Absent => now.is_none(),
        Condition::Is(version) => now.as_ref() == Some(version),
    })
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// From this many objects on, a sync of the whole file system costs less than one of each file.
const MANY: usize = 8;
/// Any name in a folder.
const ANY: &str = "_";
/// Names that no key can begin with.
const LOCK: &str = ".lock";
const TEMPORARY: &str = ".tmp";
