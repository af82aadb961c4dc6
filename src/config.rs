//! Settings: raw environment text in, a checked [`Config`] out, all problems at once.
//!
//! [`SETTINGS`] is the list of every setting with its default; `--help` prints it. Each secret may also come from a
//! file, by the same name with `_FILE` behind it (systemd credentials, Kubernetes secrets).

mod backend;
mod raw;
mod storage;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use crate::{
    proxy::Proxy,
    whatsapp::{keys::PublicKey, noise::cert::WHATSAPP_ROOT},
};

pub use backend::{BackendConfig, Dialect, default_endpoint};
use raw::Raw;
pub use raw::{ConfigProblem, ConfigProblems};
pub use storage::{ObjectsAt, S3Config, Secret, StorageConfig, SyncConfig};

/// Everything the worker can be told.
#[derive(Clone)]
pub struct Config {
    /// Name of this worker.
    pub worker_id: String,
    /// Where the API listens.
    pub bind: SocketAddr,
    /// Where others reach it: what the backend is told. [`default_endpoint`] when it is not set.
    pub endpoint: Option<String>,
    /// The gateway that is served; `None`: nothing is sent anywhere.
    pub backend: Option<BackendConfig>,
    /// Most sessions.
    pub max_sessions: usize,
    /// Bearer token of the API.
    pub auth_token: Option<String>,
    /// Who needs it.
    pub api_auth: ApiAuth,
    /// Same session and same send body within this time is one message. Zero: off; `None`: as each family of routes
    /// needs it.
    pub send_dedupe_window: Option<Duration>,
    /// Limits of the HTTP server.
    pub http: HttpConfig,
    /// Where everything durable lives.
    pub state_dir: PathBuf,
    /// The durable home of objects.
    pub storage: StorageConfig,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Filter of log lines, `env_logger` syntax.
    pub log_filter: String,
    /// How WhatsApp is reached.
    pub whatsapp: WhatsAppConfig,
    /// Port of the sandbox's control API.
    pub sandbox_port: u16,
}

/// Limits of the HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Requests answered at the same time.
    pub threads: usize,
    /// Open connections in total.
    pub max_connections: usize,
    /// Open connections of one remote address.
    pub max_connections_per_address: usize,
    /// Longest JSON body.
    pub max_body_bytes: usize,
}

/// How WhatsApp is reached. The defaults are WhatsApp's own; the sandbox and tests set others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhatsAppConfig {
    /// Websocket URL.
    pub url: String,
    /// Root of the Noise certificate chain.
    pub noise_root: PublicKey,
    /// PEM file added to the TLS roots.
    pub ca_file: Option<PathBuf>,
    /// Client version announced.
    pub version: [u32; 3],
    /// What the websocket goes through.
    pub proxy: Option<Proxy>,
}

/// Who needs the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiAuth {
    /// Everybody but local programs.
    Auto,
    /// Everybody.
    Required,
    /// Nobody.
    Off,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; with priorities when systemd's journal reads.
    Text,
    /// One JSON object per line.
    Json,
}

/// One line of `--help`.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Name of the variable.
    pub name: &'static str,
    /// Default, in words where it is computed.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Also readable from the file named by `<NAME>_FILE`.
    pub is_secret: bool,
}

const fn setting(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, default, help, is_secret: false }
}

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    setting("WORKER_ID", "host name", "Name of this worker"),
    setting("WORKER_PORT", "8001", "Port of the API"),
    setting("WORKER_BIND", "0.0.0.0 with a token, else 127.0.0.1", "Address the API listens on"),
    setting(
        "WORKER_ENDPOINT",
        "http://host name:port",
        "URL under which the backend reaches the API, without a slash at its end",
    ),
    setting("WORKER_DESCRIPTION", "unset", "What the backend shows administrators, up to 255 characters"),
    setting("WORKER_MAX_SESSIONS", "50", "Most sessions, 1 to 5000"),
    Setting {
        is_secret: true,
        ..setting(
            "WORKER_AUTH_TOKEN",
            "unset",
            "Bearer token of the API; without it only local requests are answered",
        )
    },
    setting(
        "WORKER_API_AUTH",
        "auto",
        "auto: local programs need no token; required: everybody does; off: nobody",
    ),
    setting(
        "SEND_DEDUPE_WINDOW",
        "100 for /api, else 0",
        "Seconds in which the same send body is one message, for every route; 0 turns it off",
    ),
    setting("WORKER_HTTP_THREADS", "64", "Requests answered at the same time, 4 to 512"),
    setting("WORKER_HTTP_MAX_CONNECTIONS", "1024", "Open API connections in total, 16 to 100000"),
    setting("WORKER_HTTP_MAX_CONNECTIONS_PER_ADDRESS", "256", "Open API connections of one remote address"),
    setting("WORKER_HTTP_MAX_BODY", "1048576", "Longest JSON body in bytes, 65536 to 67108864"),
    setting("BACKEND_URL", "unset: standalone", "The backend gateway; without it nothing is sent anywhere"),
    setting(
        "BACKEND_DIALECT",
        "guide",
        "guide: as in the written guide; whatsam: as the public backend does it",
    ),
    setting(
        "BACKEND_EVENTS",
        "unset: session-status only",
        "Kinds of events sent besides session-status, separated by commas, or all",
    ),
    setting("BACKEND_CA_FILE", "unset", "PEM file with the only certificates trusted for the backend"),
    setting("HEARTBEAT_INTERVAL", "30", "Seconds between two heartbeats, 1 to 300"),
    Setting {
        is_secret: true,
        ..setting("WEBHOOK_SECRET", "unset: not signed", "Signs webhooks, 16 characters or more")
    },
    Setting {
        is_secret: true,
        ..setting(
            "WEBHOOK_SECRET_OLD",
            "unset",
            "The secret that WEBHOOK_SECRET replaces; both sign meanwhile",
        )
    },
    setting("STATE_DIR", "./state", "Folder for everything durable; systemd's STATE_DIRECTORY goes first"),
    setting(
        "MINIO_ENDPOINT",
        "unset: $STATE_DIR/objects",
        "Object store, host:port or URL, MinIO or another S3 server",
    ),
    setting("MINIO_USE_SSL", "false, or what the URL says", "true: talk TLS to the object store"),
    setting("MINIO_REGION", "us-east-1", "Region of the object store"),
    setting("MINIO_BUCKET_NAME", "whatsapp-sessions", "Bucket; made when it is missing"),
    setting("MINIO_ACCESS_KEY", "unset", "Who we are to the object store; needed with MINIO_ENDPOINT"),
    Setting {
        is_secret: true,
        ..setting("MINIO_SECRET_KEY", "unset", "The secret that belongs to MINIO_ACCESS_KEY")
    },
    setting("MINIO_CA_FILE", "unset", "PEM file with the only certificates trusted for the object store"),
    Setting {
        is_secret: true,
        ..setting(
            "STORAGE_ENCRYPTION_KEY",
            "unset: plain",
            "Encrypts what is stored; 64 hex digits or base64 of 32 bytes",
        )
    },
    Setting {
        is_secret: true,
        ..setting("STORAGE_ENCRYPTION_OLD_KEYS", "unset", "Older keys, for reading; separated by commas")
    },
    setting(
        "STORAGE_DIR",
        "$STATE_DIR/objects",
        "Folder of objects without MINIO_ENDPOINT; set: workers may share it",
    ),
    setting(
        "STORAGE_SINGLE_WORKER",
        "false",
        "true: no other worker uses the object store, whatever it promises",
    ),
    setting(
        "STORAGE_LEASE_TTL",
        "45",
        "Seconds after which another worker may take a session that is not renewed",
    ),
    setting("RETENTION_MESSAGE_DAYS", "0", "Days of messages kept; 0 keeps all"),
    setting("RETENTION_MEDIA_DAYS", "0", "Days of media objects kept; 0 keeps all"),
    setting("RUST_LOG", "info", "Log filter, for example debug or whatsapp_worker::api=debug"),
    setting("LOG_FORMAT", "text", "text or json"),
    setting("WHATSAPP_URL", DEFAULT_URL, "Websocket of the service, wss:// only"),
    setting("WHATSAPP_NOISE_ROOT_KEY", "WhatsApp's", "Root of the Noise certificates, 64 hex digits"),
    setting("WHATSAPP_CA_FILE", "unset", "PEM file with certificates trusted besides the built-in roots"),
    setting("WHATSAPP_VERSION", DEFAULT_VERSION_TEXT, "Client version announced, three numbers"),
    Setting {
        is_secret: true,
        ..setting(
            "WHATSAPP_PROXY",
            "unset",
            "Proxy for the websocket: http://[name:password@]host[:port] (CONNECT) or socks5://…",
        )
    },
    setting("SANDBOX_PORT", "8090", "Port of the sandbox's control API, with --sandbox; 0 takes a free one"),
    setting("STATE_DIRECTORY", "set by systemd", "Like STATE_DIR; goes first"),
];

/// Settings of coming versions: known, and not used yet.
const NOT_YET: &[&str] = &["MEDIA_AUTO_DOWNLOAD", "MEDIA_MAX_SIZE"];

impl Config {
    /// Checks the environment. The second value is warnings worth a log line each.
    ///
    /// # Errors
    /// Every problem found, not only the first.
    pub fn from_env(
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<String>), ConfigProblems> {
        let mut raw = Raw::new(vars);
        let auth_token = raw.secret("WORKER_AUTH_TOKEN");
        check_token(&mut raw, auth_token.as_deref());
        let api_auth = raw.choice(
            "WORKER_API_AUTH",
            &[("auto", ApiAuth::Auto), ("required", ApiAuth::Required), ("off", ApiAuth::Off)],
        );
        let is_open = auth_token.is_some() || api_auth == ApiAuth::Off && raw.is_set("WORKER_BIND");
        let state_dir = state_dir(&mut raw);
        let worker_id = worker_id(&mut raw);
        let config = Self {
            backend: backend::backend(&mut raw, &worker_id, auth_token.as_deref()),
            worker_id,
            bind: bind(&mut raw, is_open),
            endpoint: endpoint(&mut raw),
            max_sessions: raw.number("WORKER_MAX_SESSIONS", 50, 1..=5000),
            auth_token,
            api_auth,
            send_dedupe_window: raw
                .is_set("SEND_DEDUPE_WINDOW")
                .then(|| Duration::from_secs(raw.number("SEND_DEDUPE_WINDOW", 0, 0..=86_400))),
            http: HttpConfig {
                threads: raw.number("WORKER_HTTP_THREADS", 64, 4..=512),
                max_connections: raw.number("WORKER_HTTP_MAX_CONNECTIONS", 1024, 16..=100_000),
                max_connections_per_address: raw.number(
                    "WORKER_HTTP_MAX_CONNECTIONS_PER_ADDRESS",
                    256,
                    1..=100_000,
                ),
                max_body_bytes: raw.number("WORKER_HTTP_MAX_BODY", 1 << 20, 65_536..=67_108_864),
            },
            storage: storage::storage(&mut raw, &state_dir),
            state_dir,
            log_format: raw.choice("LOG_FORMAT", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
            log_filter: raw.text("RUST_LOG").unwrap_or_else(|| "info".to_owned()),
            whatsapp: whatsapp(&mut raw),
            sandbox_port: raw.number("SANDBOX_PORT", 8090, 0..=u16::MAX),
        };
        if config.api_auth == ApiAuth::Required && config.auth_token.is_none() {
            raw.problem("WORKER_AUTH_TOKEN", "is needed because WORKER_API_AUTH=required");
        }
        let mut warnings = raw.finish(NOT_YET)?;
        warnings.extend(backend::warnings(config.backend.as_ref()));
        if config.api_auth == ApiAuth::Off && !config.bind.ip().is_loopback() {
            warnings.push(format!(
                "WORKER_API_AUTH=off: everybody who reaches {} can use every session",
                config.bind
            ));
        }
        Ok((config, warnings))
    }
}

/// A token that cannot be sent in a header, or can be guessed, is a mistake to find now.
fn check_token(raw: &mut Raw, token: Option<&str>) {
    let Some(token) = token else { return };
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        raw.problem("WORKER_AUTH_TOKEN", "must be visible ASCII characters without blanks");
    }
    if token.len() < 8 {
        raw.problem("WORKER_AUTH_TOKEN", "must be at least 8 characters long");
    }
}

fn worker_id(raw: &mut Raw) -> String {
    let is_valid = |id: &str| {
        (1..=100).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    match raw.text("WORKER_ID") {
        Some(id) if is_valid(&id) => id,
        Some(_) => {
            raw.problem("WORKER_ID", "must be 1 to 100 of A-Z a-z 0-9 - _ .");
            String::new()
        }
        None => {
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            if is_valid(&host) { host } else { "worker".to_owned() }
        }
    }
}

fn bind(raw: &mut Raw, is_open: bool) -> SocketAddr {
    let port = raw.number("WORKER_PORT", 8001, 0..=65_535);
    let default = if is_open { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    let ip = match raw.text("WORKER_BIND").map(|text| text.parse::<IpAddr>()) {
        None => IpAddr::V4(default),
        Some(Ok(ip)) => ip,
        Some(Err(_)) => {
            raw.problem("WORKER_BIND", "must be an IP address, like 0.0.0.0 or ::");
            IpAddr::V4(default)
        }
    };
    if !is_open && !ip.is_loopback() {
        raw.problem("WORKER_BIND", "other than loopback needs WORKER_AUTH_TOKEN (or WORKER_API_AUTH=off)");
    }
    SocketAddr::new(ip, port)
}

fn endpoint(raw: &mut Raw) -> Option<String> {
    let endpoint = raw.text("WORKER_ENDPOINT")?;
    let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    if !host.is_some_and(|host| !host.is_empty() && !host.ends_with('/') && !host.contains(' ')) {
        raw.problem("WORKER_ENDPOINT", "must be an http or https URL without a slash at its end");
    }
    Some(endpoint)
}

fn state_dir(raw: &mut Raw) -> PathBuf {
    let of_systemd = raw.text("STATE_DIRECTORY");
    let own = raw.text("STATE_DIR");
    // systemd separates several directories by colons; ours is the first.
    let of_systemd = of_systemd.and_then(|dirs| dirs.split(':').next().map(str::to_owned));
    PathBuf::from(of_systemd.or(own).unwrap_or_else(|| "state".to_owned()))
}

fn whatsapp(raw: &mut Raw) -> WhatsAppConfig {
    let url = raw.text("WHATSAPP_URL").unwrap_or_else(|| DEFAULT_URL.to_owned());
    if !url.strip_prefix("wss://").is_some_and(|rest| !rest.is_empty() && !rest.contains([' ', '@'])) {
        raw.problem("WHATSAPP_URL", "must be a wss:// URL");
    }
    let noise_root = match raw.text("WHATSAPP_NOISE_ROOT_KEY").map(|text| hex_key(&text)) {
        None => WHATSAPP_ROOT,
        Some(Some(key)) => key,
        Some(None) => {
            raw.problem("WHATSAPP_NOISE_ROOT_KEY", "must be 64 hex digits");
            WHATSAPP_ROOT
        }
    };
    let ca_file = raw.text("WHATSAPP_CA_FILE").map(PathBuf::from);
    if ca_file.as_ref().is_some_and(|path| !path.is_file()) {
        raw.problem("WHATSAPP_CA_FILE", "is not a file that can be read");
    }
    let version = match raw.text("WHATSAPP_VERSION").map(|text| version(&text)) {
        None => DEFAULT_VERSION,
        Some(Some(version)) => version,
        Some(None) => {
            raw.problem("WHATSAPP_VERSION", "must be three numbers, like 2.3000.1045649367");
            DEFAULT_VERSION
        }
    };
    let proxy = raw.secret("WHATSAPP_PROXY").and_then(|text| match Proxy::parse(&text) {
        Ok(proxy) => Some(proxy),
        Err(problem) => {
            raw.problem("WHATSAPP_PROXY", problem);
            None
        }
    });
    WhatsAppConfig { url, noise_root, ca_file, version, proxy }
}

fn hex_key(text: &str) -> Option<PublicKey> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |sum, digit| sum << 4 | digit)).collect();
    (digits.len() == 64).then(|| PublicKey::from_slice(&bytes)).flatten()
}

fn version(text: &str) -> Option<[u32; 3]> {
    let parts: Vec<u32> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    parts.try_into().ok()
}

const DEFAULT_URL: &str = "wss://web.whatsapp.com/ws/chat";

/// Newest client version seen in the sources the protocol facts name. WhatsApp answers 405 once it is too old.
/// Seen: whatsmeow `store/clientpayload.go` @33cfac51.
const DEFAULT_VERSION: [u32; 3] = [2, 3000, 1_045_649_367];
const DEFAULT_VERSION_TEXT: &str = "2.3000.1045649367";

#[cfg(test)]
mod tests;
