//! Where a folder of Baileys' files can be: on this machine, or among the objects.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{super::layout, TransferError};
use crate::storage::{
    baileys::Folder,
    object::{ObjectError, ObjectStore},
};

/// A folder, or everything directly below a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On this machine.
    Folder(PathBuf),
    /// Prefix of keys, with a slash at its end.
    Objects(String),
}

/// What a place has.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) files: Folder,
    /// Files that cannot be read, with the reason.
    pub(super) unread: Vec<(String, String)>,
}

impl Place {
    /// `store:<prefix>` is a prefix of keys in the object store, anything else a folder.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix(OBJECTS) {
            Some(prefix) => Self::Objects(format!("{}/", prefix.trim_end_matches('/'))),
            None => Self::Folder(PathBuf::from(text)),
        }
    }

    /// Reads what is there; the part below `auth_info_baileys` when the credentials are there and not above.
    pub(super) fn read(&self, store: &dyn ObjectStore) -> Result<Contents, TransferError> {
        let mut contents = self.read_here(store)?;
        if !contents.files.contains_key(layout::CREDS) {
            let inner = match self {
                Self::Folder(dir) => Self::Folder(dir.join(INNER)),
                Self::Objects(prefix) => Self::Objects(format!("{prefix}{INNER}/")),
            };
            let below = inner.read_here(store)?;
            if below.files.contains_key(layout::CREDS) {
                contents = below;
            }
        }
        if contents.files.is_empty() && contents.unread.is_empty() {
            return Err(TransferError::Missing(self.to_string()));
        }
        Ok(contents)
    }

    fn read_here(&self, store: &dyn ObjectStore) -> Result<Contents, TransferError> {
        match self {
            Self::Folder(dir) => read_folder(dir),
            Self::Objects(prefix) => read_objects(store, prefix),
        }
    }

    pub(super) fn is_empty(&self, store: &dyn ObjectStore) -> Result<bool, TransferError> {
        match self {
            Self::Folder(dir) => match fs::read_dir(dir) {
                Ok(mut entries) => Ok(entries.next().is_none()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
                Err(error) => Err(failed(dir)(error)),
            },
            Self::Objects(prefix) => Ok(store.list(prefix)?.is_empty()),
        }
    }

    /// Makes room for files.
    pub(super) fn prepare(&self) -> Result<(), TransferError> {
        match self {
            Self::Folder(dir) => {
                let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
                made.map_err(failed(dir))
            }
            Self::Objects(_) => Ok(()),
        }
    }

    pub(super) fn write(
        &self,
        store: &dyn ObjectStore,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), TransferError> {
        match self {
            Self::Folder(dir) => {
                let path = dir.join(name);
                let mut options = fs::OpenOptions::new();
                let file = options.write(true).create_new(true).mode(0o600).open(&path);
                let written = file.and_then(|mut file| {
                    file.write_all(bytes)?;
                    file.sync_all()
                });
                written.map_err(failed(&path))
            }
            Self::Objects(prefix) => {
                store.put(&format!("{prefix}{name}"), bytes, "application/json")?;
                Ok(())
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(dir) => write!(f, "{}", dir.display()),
            Self::Objects(prefix) => write!(f, "{OBJECTS}{prefix}"),
        }
    }
}

fn read_folder(dir: &Path) -> Result<Contents, TransferError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::default()),
        Err(error) => return Err(failed(dir)(error)),
    };
    let mut contents = Contents::default();
    for entry in entries {
        let entry = entry.map_err(failed(dir))?;
        let path = entry.path();
        let size = match fs::metadata(&path) {
            Ok(about) if about.is_file() => about.len(),
            Ok(_) => continue,
            Err(error) => return Err(failed(&path)(error)),
        };
        let Ok(name) = entry.file_name().into_string() else {
            contents.unread.push((path.display().to_string(), "its name is not UTF-8".to_owned()));
            continue;
        };
        if size > MAX_FILE_BYTES {
            contents.unread.push((name, format!("it is too large ({size} bytes)")));
            continue;
        }
        match fs::read(&path) {
            Ok(bytes) => drop(contents.files.insert(name, bytes)),
            Err(error) => contents.unread.push((name, error.to_string())),
        }
    }
    Ok(contents)
}

fn read_objects(store: &dyn ObjectStore, prefix: &str) -> Result<Contents, TransferError> {
    let mut contents = Contents::default();
    for object in store.list(prefix)? {
        let Some(name) = object.key.strip_prefix(prefix).filter(|name| layout::is_flat_account(name)) else {
            continue;
        };
        match store.get(&object.key) {
            Ok(Some(object)) => drop(contents.files.insert(name.to_owned(), object.bytes)),
            Ok(None) => {}
            Err(ObjectError::Damaged { problem, .. }) => {
                contents.unread.push((name.to_owned(), problem.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(contents)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> TransferError {
    let path = path.to_owned();
    move |source| TransferError::File { path, source }
}

/// What a place among the objects begins with, where a person names it.
const OBJECTS: &str = "store:";
/// Folder that Baileys' examples and our layout keep the files in.
const INNER: &str = "auth_info_baileys";
/// More than any file of an account has.
const MAX_FILE_BYTES: u64 = 64 << 20;
