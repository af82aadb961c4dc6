//! Whether the object store can be used, by the same self-test that a worker makes at its start.

use std::path::Path;

use super::{machine::tempfile_in, report::Finding};
use crate::{
    config::{Config, ObjectsAt},
    storage::object::{self, Conditions, ObjectError},
};

const NAME: &str = "object store";

/// A bucket is written to and read from; of a folder only the place is looked at, because what this user would make in
/// it the worker's user could not change.
pub(super) fn check(config: &Config) -> Finding {
    match &config.storage.objects {
        ObjectsAt::Directory(root) => folder(root),
        ObjectsAt::S3(s3) => bucket(config, &format!("bucket {} at {}", s3.bucket, s3.endpoint)),
    }
}

fn folder(root: &Path) -> Finding {
    let shown = root.display();
    if !root.exists() {
        return Finding::ok(NAME, format!("the folder {shown}, which will be made at the first start"));
    }
    match tempfile_in(root) {
        Ok(()) => Finding::ok(NAME, format!("the folder {shown}")),
        Err(error) => Finding::fail(
            NAME,
            format!("the folder {shown} cannot be written: {error}"),
            "hand it to the worker's user, or set STORAGE_DIR",
        ),
    }
}

fn bucket(config: &Config, place: &str) -> Finding {
    let tried = object::open(&config.storage).and_then(|objects| object::self_test(&*objects));
    match tried {
        Ok(Conditions::Enforced) => Finding::ok(NAME, format!("{place}: written, read, conditions are kept")),
        Ok(Conditions::Ignored { how }) => {
            let finding = format!("{place} ignores conditional writes ({how})");
            let advice = "use another store (MinIO, Ceph, S3), or never let a second worker use it";
            if config.storage.sync.single_worker {
                Finding::warn(NAME, finding, advice)
            } else {
                let advice = format!("{advice} and set STORAGE_SINGLE_WORKER=true");
                Finding::fail(NAME, finding, advice)
            }
        }
        Err(error) => failed(&error),
    }
}

/// These errors end in what to do.
fn failed(error: &ObjectError) -> Finding {
    let text = error.to_string();
    let (finding, advice) = text.rsplit_once("; ").unwrap_or((&text, "look at the store's own logs"));
    let finding = finding.strip_prefix("object store ").unwrap_or(finding);
    Finding::fail(NAME, finding, advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Verdict;

    #[test]
    fn a_folder_is_looked_at_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("objects");
        assert_eq!(folder(&root).verdict, Verdict::Ok);
        assert!(!root.exists(), "the worker's user makes it");
        std::fs::create_dir(&root).unwrap();
        assert_eq!(folder(&root).verdict, Verdict::Ok);
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
        assert_eq!(folder(Path::new("/proc/self")).verdict, Verdict::Fail);
    }

    #[test]
    fn a_store_that_is_not_there_says_what_to_look_at() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let vars = [
            ("MINIO_ENDPOINT", closed.to_string()),
            ("MINIO_ACCESS_KEY", "key".to_owned()),
            ("MINIO_SECRET_KEY", "secret".to_owned()),
        ];
        let (config, _) = Config::from_env(vars.map(|(name, value)| (name.to_owned(), value))).unwrap();
        let found = check(&config);
        assert_eq!(found.verdict, Verdict::Fail, "{found:?}");
        assert!(found.finding.starts_with(&format!("http://{closed}/")), "{found:?}");
        assert!(found.advice.unwrap().contains("MINIO_ENDPOINT"));
    }
}
