//! A worker's API on loopback and a client for it, for the tests of the REST contract.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part of this")]

pub mod linked;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use whatsapp_worker::{
    api::{
        Api, ApiSettings,
        http::{HttpOptions, HttpServer},
    },
    config::Config,
    session::{Registry, SessionSettings},
    storage::local::LocalStore,
};

/// A worker's API on loopback. Fields drop in this order.
pub struct Worker {
    pub http: HttpServer,
    pub api: Arc<Api>,
    pub registry: Registry,
    settings: (SessionSettings, ApiSettings),
    dir: Arc<tempfile::TempDir>,
}

/// What is asked, and how.
#[derive(Default)]
pub struct Ask<'a> {
    pub headers: &'a [(&'a str, &'a str)],
    pub body: Option<&'a str>,
}

/// What came back.
#[derive(PartialEq)]
pub struct Got {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, String::from_utf8_lossy(&self.body))
    }
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn data(&self) -> Value {
        let json = self.json();
        assert_eq!(json["success"], true, "{json}");
        json["data"].clone()
    }

    /// Checks the error envelope and gives its word and field.
    pub fn refusal(&self) -> (u16, String, String) {
        let json = self.json();
        assert_eq!(json["success"], false, "{json}");
        assert!(json["error"].as_str().is_some_and(|text| !text.is_empty()), "{json}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (self.status, text(&json["code"]), text(&json["details"]["field"]))
    }
}

/// Where nobody listens: port 9 (discard) of loopback.
const NOWHERE: &str = "wss://127.0.0.1:9/ws/chat";

pub fn worker(change: impl FnOnce(&mut ApiSettings)) -> Worker {
    let (config, _) = Config::from_env([]).unwrap();
    let settings = SessionSettings {
        url: NOWHERE.to_owned(),
        noise_root: config.whatsapp.noise_root,
        ca_file: None,
        proxy: None,
        version: config.whatsapp.version,
        device_name: "Test".to_owned(),
        max_sessions: 5,
    };
    let mut api = ApiSettings::from(&config);
    api.connect_wait = Duration::from_millis(300);
    change(&mut api);
    start(Arc::new(tempfile::tempdir().unwrap()), settings, api)
}

pub fn start(dir: Arc<tempfile::TempDir>, settings: SessionSettings, api: ApiSettings) -> Worker {
    let registry = Registry::open(LocalStore::open(dir.path()).unwrap(), settings.clone()).unwrap();
    let settings = (settings, api.clone());
    let api = Api::new(registry.clone(), api);
    let options = HttpOptions { threads: 12, ..HttpOptions::new("test", "127.0.0.1:0".parse().unwrap()) };
    let http = HttpServer::start(options, api.handler()).unwrap();
    registry.start_all();
    Worker { http, api, registry, settings, dir }
}

impl Worker {
    /// Stops in order and starts again over the same state.
    pub fn restarted(self) -> Self {
        let (dir, (settings, api)) = (self.dir.clone(), self.settings.clone());
        drop(self);
        start(dir, settings, api)
    }

    pub fn ask(&self, method: &str, path: &str, ask: Ask<'_>) -> Got {
        exchange(self.http.local_addr(), method, path, &ask)
    }

    pub fn get(&self, path: &str) -> Got {
        self.ask("GET", path, Ask::default())
    }

    pub fn post(&self, path: &str, body: &str) -> Got {
        self.ask("POST", path, Ask { body: Some(body), headers: &[("Content-Type", "application/json")] })
    }

    pub fn create(&self, id: &str) {
        let body = json!({ "sessionId": id, "userId": "user123" }).to_string();
        assert_eq!(self.post("/session/create", &body).status, 200);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.api.begin_stop();
        self.registry.shutdown(Duration::from_secs(5));
    }
}

pub fn exchange(address: SocketAddr, method: &str, path: &str, ask: &Ask<'_>) -> Got {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n");
    for (name, value) in ask.headers {
        request += &format!("{name}: {value}\r\n");
    }
    if let Some(body) = ask.body {
        request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    } else {
        request += "\r\n";
    }
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    Got {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        body: answer[end + 4..].to_vec(),
    }
}
