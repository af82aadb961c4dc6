//! A folder only we can enter, for internal sockets and the sandbox's state; removed when dropped.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// The folder.
pub(crate) struct PrivateDir(PathBuf);

impl PrivateDir {
    /// Makes a fresh folder with mode 0700 below `base`, or below the system's temporary folder when `base` is not
    /// given, does not exist, or is too long for the path of a Unix socket.
    pub(crate) fn create(base: Option<&Path>) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let temp = std::env::temp_dir();
        let usable = |base: &&Path| base.is_dir() && base.as_os_str().len() <= MAX_BASE_BYTES;
        let base = base.filter(usable).unwrap_or(&temp);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("whatsapp-worker-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                // Left behind by a killed process with our number, or somebody else's: never entered.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 10_000 => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `sun_path` holds 108 bytes; this leaves room for our folder and file names.
const MAX_BASE_BYTES: usize = 60;
