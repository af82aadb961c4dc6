//! A small HTTP client that keeps its connection: the harness shares the processors with what it measures.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
};

use serde_json::{Value, json};

use crate::common::PATIENCE;

/// One connection to one server.
pub struct Client {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    /// `base`: `http://host:port`.
    pub fn new(base: &str) -> Self {
        Self { address: base.trim_start_matches("http://").to_owned(), stream: None }
    }

    /// `data` of an answer that must be a success.
    pub fn get(&mut self, path: &str) -> Value {
        self.ask("GET", path, "")
    }

    /// `data` of an answer that must be a success.
    pub fn post(&mut self, path: &str, body: &Value) -> Value {
        self.ask("POST", path, &body.to_string())
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> Value {
        let (status, text) = self.exchange(method, path, body);
        let json: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        assert!(status / 100 == 2 && json["success"] == json!(true), "{method} {path}: {status} {json}");
        json["data"].clone()
    }

    /// Status and body of an answer.
    pub fn exchange(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let address = self.address.clone();
        let stream = self.stream.get_or_insert_with(|| {
            let stream = TcpStream::connect(&address).expect("the server listens");
            stream.set_nodelay(true).expect("a socket");
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
            BufReader::new(stream)
        });
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.get_mut().write_all(request.as_bytes()).expect("the server reads");
        let mut line = String::new();
        stream.read_line(&mut line).expect("the server answers");
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status line");
        let (mut length, mut keep) = (0, true);
        loop {
            line.clear();
            stream.read_line(&mut line).expect("the server answers");
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            assert!(!header.starts_with("transfer-encoding:"), "{header}");
            keep &= header != "connection: close";
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).expect("the whole answer");
        if !keep {
            self.stream = None;
        }
        (status, String::from_utf8(answer).expect("UTF-8"))
    }
}
