//! A folder only we can enter, for internal sockets and the sandbox's state; removed when dropped.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// The folder.
pub(crate) struct PrivateDir(PathBuf);

impl PrivateDir {
    /// Makes an empty folder with mode 0700: `run` in a folder that is ours alone (what a killed process left there
    /// is removed), or a fresh one among the system's temporary ones when there is no such folder, or its name is
    /// too long for the path of a Unix socket.
    pub(crate) fn create(own: Option<&Path>) -> io::Result<Self> {
        match own.filter(|own| own.as_os_str().len() <= MAX_BASE_BYTES) {
            Some(own) => Self::replace(own.join("run")),
            None => Self::temporary(),
        }
    }

    fn replace(path: PathBuf) -> io::Result<Self> {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn temporary() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("whatsapp-worker-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
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
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `sun_path` holds 108 bytes with its end; this leaves room for our folder and file names.
const MAX_BASE_BYTES: usize = 90;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_a_killed_process_left_is_replaced_and_nobody_else_may_enter() {
        let own = tempfile::tempdir().unwrap();
        fs::create_dir(own.path().join("run")).unwrap();
        fs::write(own.path().join("run/old"), "").unwrap();
        let dir = PrivateDir::create(Some(own.path())).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
        drop(dir);
        assert_eq!(fs::read_dir(own.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_long_path_is_not_used_for_sockets() {
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(100)));
        let dir = PrivateDir::create(Some(&long)).unwrap();
        assert!(dir.path().starts_with(std::env::temp_dir()));
    }
}
