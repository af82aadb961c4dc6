//! Object stores for tests: real MinIO, real Ceph radosgw, and a careless server that is neither.
//!
//! MinIO and radosgw run once per test process, on free ports of 127.0.0.1. They end with the process, however it ends:
//! each hangs on the other end of a pipe that the system closes.

pub mod careless;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use whatsapp_worker::{
    config::{S3Config, Secret},
    storage::object::{ObjectStore as _, s3::S3Store},
};

use super::eventually;

/// A server that speaks S3.
pub struct S3Server {
    /// Where it listens.
    pub address: SocketAddr,
    pub access_key: &'static str,
    pub secret_key: &'static str,
}

impl S3Server {
    /// Settings for a bucket on it.
    pub fn config(&self, bucket: &str) -> S3Config {
        self.config_at(self.address, bucket)
    }

    /// The same by way of another address, as of a proxy.
    pub fn config_at(&self, address: SocketAddr, bucket: &str) -> S3Config {
        S3Config {
            endpoint: format!("http://{address}"),
            region: "us-east-1".to_owned(),
            bucket: bucket.to_owned(),
            access_key: self.access_key.to_owned(),
            secret_key: Secret::new(self.secret_key),
            ca_file: None,
        }
    }
}

/// The MinIO of this test process.
pub fn minio() -> &'static S3Server {
    static SERVER: OnceLock<(S3Server, Tether)> = OnceLock::new();
    &SERVER
        .get_or_init(|| {
            let folder = own_folder("minio");
            let address = free_address();
            let tether = Tether::start(&mut minio_command(&folder, address, None), &folder);
            await_minio(address, None);
            (minio_at(address), tether)
        })
        .0
}

/// The radosgw of this test process.
pub fn radosgw() -> &'static S3Server {
    static SERVER: OnceLock<(S3Server, Child, ChildStdin)> = OnceLock::new();
    &SERVER.get_or_init(start_radosgw).0
}

fn start_radosgw() -> (S3Server, Child, ChildStdin) {
    let folder = own_folder("radosgw");
    let address = free_address();
    let (v2, v1) = (free_address(), free_address());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/radosgw.sh");
    let mut child = Command::new(script)
        .arg(&folder)
        .args([address, v2, v1].map(|address| address.port().to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/peers/radosgw.sh can be started");
    let stdin = child.stdin.take().expect("it is piped");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).unwrap();
    let log = || fs::read_to_string(folder.join("setup.log")).unwrap_or_default();
    assert_eq!(line, "ready\n", "radosgw does not start; is it installed (tests/run --setup)?\n{}", log());
    (S3Server { address, access_key: "tester-key", secret_key: "tester-secret" }, child, stdin)
}

/// A MinIO of one test's own, to be stopped and started.
pub struct OwnMinio {
    pub server: S3Server,
    /// Authority that signed its certificate, when it has one.
    pub ca_file: Option<PathBuf>,
    // Ends before its folder goes.
    tether: Option<Tether>,
    folder: tempfile::TempDir,
}

impl OwnMinio {
    pub fn start() -> Self {
        Self::start_as(false)
    }

    /// With a certificate for 127.0.0.1 of an authority nobody knows.
    pub fn start_with_tls() -> Self {
        Self::start_as(true)
    }

    fn start_as(is_tls: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca_file = is_tls.then(|| {
            let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            let certs = folder.path().join("certs");
            fs::create_dir(&certs).unwrap();
            fs::write(certs.join("public.crt"), own.cert.pem()).unwrap();
            fs::write(certs.join("private.key"), own.signing_key.serialize_pem()).unwrap();
            certs.join("public.crt")
        });
        let server = minio_at(free_address());
        let mut minio = Self { server, ca_file, tether: None, folder };
        minio.start_again();
        minio
    }

    pub fn start_again(&mut self) {
        let certs = self.ca_file.as_ref().and_then(|file| file.parent());
        let mut command = minio_command(self.folder.path(), self.server.address, certs);
        self.tether = Some(Tether::start(&mut command, self.folder.path()));
        await_minio(self.server.address, self.ca_file.as_deref());
    }

    pub fn stop(&mut self) {
        self.tether = None;
    }
}

fn minio_at(address: SocketAddr) -> S3Server {
    S3Server { address, access_key: "minioadmin", secret_key: "minioadmin-secret" }
}

fn minio_command(folder: &Path, address: SocketAddr, certs: Option<&Path>) -> Command {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/minio/minio");
    assert!(program.is_file(), "MinIO is not installed: run tests/run --setup");
    let mut command = Command::new("sh");
    // The shell waits for the end of its input, then kills the server.
    command.args(["-c", "\"$@\" </dev/null >/dev/null & read -r _; kill -9 $!; wait", "sh"]);
    command
        .arg(program)
        .args(["server", "--address", &address.to_string()])
        .args(certs.into_iter().flat_map(|certs| [Path::new("--certs-dir"), certs]))
        .arg(folder.join("data"))
        .env("MINIO_ROOT_USER", "minioadmin")
        .env("MINIO_ROOT_PASSWORD", "minioadmin-secret")
        .env("MINIO_REGION", "us-east-1")
        .env("MINIO_BROWSER", "off")
        .env("MINIO_UPDATE", "off")
        // Not the certificates and settings of whoever runs the tests.
        .env("HOME", folder);
    command
}

/// MinIO answers before it can do anything, and says so in a header only.
fn await_minio(address: SocketAddr, ca_file: Option<&Path>) {
    if let Some(ca_file) = ca_file {
        let config = S3Config {
            endpoint: format!("https://{address}"),
            ca_file: Some(ca_file.to_owned()),
            ..minio_at(address).config("ready")
        };
        let store = S3Store::open(&config).expect("settings that can be used");
        eventually("MinIO serves", || store.put("ready", b"", "text/plain").ok());
        return;
    }
    eventually("MinIO serves", || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET /minio/health/ready HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let answer = answer.to_ascii_lowercase();
        let (status_line, headers) = answer.split_once('\n')?;
        (status_line.contains(" 200") && !headers.contains("x-minio-server-status: offline")).then_some(())
    });
}

/// A process that ends when this is dropped, or when this process does.
struct Tether {
    child: Child,
}

impl Tether {
    fn start(command: &mut Command, folder: &Path) -> Self {
        let log = fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let child = command.stdin(Stdio::piped()).stderr(log).spawn().unwrap();
        Self { child }
    }
}

impl Drop for Tether {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// An address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).unwrap()
}

/// A folder that outlives the tests of this process; those of processes that are gone are removed.
fn own_folder(name: &str) -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("object-stores");
    for entry in fs::read_dir(&all).into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().rsplit('-').next().map(str::to_owned);
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let folder = all.join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}
