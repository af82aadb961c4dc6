//! Files and folders as the directory store needs them: durable, for their owner only.

use std::{
    fs::{self, DirBuilder, File, FileTimes, Metadata},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::super::{ObjectInfo, Version};

/// A time of writing that no other write of this process has.
#[derive(Clone, Copy)]
pub(super) struct Stamp(u64);

impl Stamp {
    /// Now, or a nanosecond after the last one.
    pub(super) fn now() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let last = LAST
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)))
            .unwrap_or_else(|last| last);
        Self(now.max(last + 1))
    }

    fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0)
    }
}

/// A file on its way to its place; removed unless it gets there.
pub(super) struct Temporary {
    path: PathBuf,
    version: Version,
    is_placed: bool,
}

impl Temporary {
    /// Writes a file in `folder`; without `flush` the caller makes it durable before it is placed.
    pub(super) fn write(folder: &Path, bytes: &[u8], stamp: Stamp, flush: bool) -> io::Result<Self> {
        let path = folder.join(format!("{}-{:x}", process::id(), stamp.0));
        let mut file = File::options().create_new(true).write(true).mode(0o600).open(&path)?;
        let mut temporary = Self { path, version: Version::new(""), is_placed: false };
        file.write_all(bytes)?;
        file.set_times(FileTimes::new().set_modified(stamp.time()))?;
        if flush {
            file.sync_all()?;
        }
        temporary.version = version_of(&file.metadata()?);
        Ok(temporary)
    }

    /// Renames it.
    pub(super) fn place(mut self, path: &Path) -> io::Result<Version> {
        fs::rename(&self.path, path)?;
        self.is_placed = true;
        Ok(self.version.clone())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_placed {
            // The sweep of the next start takes what stays.
            let _ = fs::remove_file(&self.path);
        }
    }
}

pub(super) fn version_of(meta: &Metadata) -> Version {
    Version::new(format!("{:x}-{:x}.{:09}-{:x}", meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

pub(super) fn info_of(key: &str, meta: &Metadata) -> ObjectInfo {
    let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified_ms = u64::try_from(modified.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
    ObjectInfo { key: key.to_owned(), size: meta.len(), modified_ms, version: version_of(meta) }
}

/// Makes a folder and those above it; fine when it is there.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes the folders of a key. Whether there was one to make.
pub(super) fn make_folders_of(root: &Path, key: &str) -> io::Result<bool> {
    let Some((folder, _)) = key.rsplit_once('/') else { return Ok(false) };
    let folder = root.join(folder);
    if folder.is_dir() {
        return Ok(false);
    }
    make_folder(&folder)?;
    Ok(true)
}

/// Makes a rename durable; after making folders, those too.
pub(super) fn flush_folders(root: &Path, path: &Path, made_folder: bool) -> io::Result<()> {
    for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(root)) {
        match File::open(folder).and_then(|folder| folder.sync_all()) {
            // Somebody removed the object and its folder meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
        if !made_folder {
            break;
        }
    }
    Ok(())
}

/// Removes the folders of a file that is gone as far as they are empty. The folder that stayed.
pub(super) fn remove_empty_folders(root: &Path, path: &Path) -> io::Result<PathBuf> {
    for folder in path.ancestors().skip(1).take_while(|folder| *folder != root) {
        match fs::remove_dir(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(folder.to_owned()),
            Err(error) => return Err(error),
        }
    }
    Ok(root.to_owned())
}

/// Calls `found` with every object below `root/folder`: its key and what the file system says of it.
pub(super) fn walk(root: &Path, folder: &str, found: &mut impl FnMut(&str, &Metadata)) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(root.join(&folder)) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !folder.is_empty() || !name.starts_with('.')) else {
                continue;
            };
            let key = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            // Does not follow links.
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(key),
                Ok(meta) if meta.is_file() => found(&key, &meta),
                Ok(_) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Removes what writers that died left behind.
pub(super) fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let age = entry.metadata().ok().and_then(|meta| meta.modified().ok()?.elapsed().ok());
        if age.is_some_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Far longer than any write takes; another process may be writing now.
const ABANDONED: Duration = Duration::from_secs(3600);
