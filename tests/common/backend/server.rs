//! An HTTP server for tests that keeps what it was asked, and misbehaves when it is told to. What it answers is the
//! business of whoever starts it.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

/// What the server was asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub at: Instant,
    /// The same by the clock on the wall, in seconds since 1970.
    pub unix_s: u64,
    /// Status of the answer, once there is one; a trouble may have kept it from the client.
    pub answered: Option<u16>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body; `Null` when it is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path == path
    }
}

/// What the server says.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Answer {
    pub fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("Content-Type", "application/json; charset=utf-8".to_owned())];
        Self { status, headers, body: body.to_string() }
    }

    /// An error with nothing but a sentence.
    pub fn error(status: u16, text: &str) -> Self {
        Self::json(status, &json!({ "success": false, "error": text }))
    }

    pub fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// How the server misbehaves.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// Refuses without looking.
    Status(u16),
    /// 429 with `Retry-After` in seconds.
    TooMany(u64),
    /// Says nothing until the client gives up.
    Hang,
    /// Does it, then ends the connection in the middle of the answer.
    HalfAnswer,
    /// Does it, then ends the connection without an answer.
    NoAnswer,
    /// 200 with the page of some proxy.
    Html,
    /// 200 that says JSON and is none.
    WrongJson,
    /// Does it, and answers after that time.
    Slow(Duration),
    /// Does it, and answers, when the test has dropped the other end.
    Held(crossbeam_channel::Receiver<()>),
}

struct Rule {
    path: String,
    trouble: Trouble,
    left: Option<usize>,
}

/// Answers a request.
pub type Service = dyn Fn(&Request) -> Answer + Send + Sync;

/// The server. Ends with the value.
pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    service: Box<Service>,
    requests: Mutex<Vec<Request>>,
    rules: Mutex<Vec<Rule>>,
    gate: Mutex<Gate>,
}

/// Open connections; of an older opening none is kept.
#[derive(Default)]
struct Gate {
    opening: u64,
    is_open: bool,
    connections: Vec<TcpStream>,
}

impl Server {
    /// Not listening yet.
    pub fn closed(service: Box<Service>) -> Self {
        let (requests, rules, gate) = Default::default();
        let shared = Arc::new(Shared { service, requests, rules, gate });
        Self { address: super::own_address(), shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Begins to listen.
    pub fn open(&self) {
        let listener = TcpListener::bind(self.address).expect("the port is free");
        let opening = {
            let mut gate = locked(&self.shared.gate);
            assert!(!gate.is_open, "it is open");
            gate.is_open = true;
            gate.opening += 1;
            gate.opening
        };
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { continue };
                if !shared.admit(opening, &client) {
                    break;
                }
                let shared = Arc::clone(&shared);
                // A side that hangs up ends the connection; who cares sees it in the requests.
                thread::spawn(move || drop(shared.converse(client)));
            }
        });
    }

    /// Closes the port and every connection, whatever is under way.
    pub fn close(&self) {
        {
            let mut gate = locked(&self.shared.gate);
            gate.is_open = false;
            for connection in gate.connections.drain(..) {
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
        // Wakes the listener, which sees that it is closed; gone when nobody can connect any more.
        while TcpStream::connect(self.address).is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// From now on, requests whose path has this in it get the trouble, until [`Server::heal`].
    pub fn trouble(&self, path: &str, trouble: Trouble) {
        self.rule(path, trouble, None);
    }

    /// The next `count` requests whose path has this in it get the trouble.
    pub fn trouble_times(&self, path: &str, count: usize, trouble: Trouble) {
        self.rule(path, trouble, Some(count));
    }

    fn rule(&self, path: &str, trouble: Trouble, left: Option<usize>) {
        locked(&self.shared.rules).push(Rule { path: path.to_owned(), trouble, left });
    }

    /// Ends all trouble; what hangs at this moment stays as it is.
    pub fn heal(&self) {
        locked(&self.shared.rules).clear();
    }

    /// Every request so far whose path has this in it, oldest first.
    pub fn requests(&self, path: &str) -> Vec<Request> {
        let requests = locked(&self.shared.requests);
        requests.iter().filter(|request| request.path.contains(path)).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if locked(&self.shared.gate).is_open {
            self.close();
        }
    }
}

impl Shared {
    /// Whether this opening goes on; its connections are kept to be ended with it.
    fn admit(&self, opening: u64, client: &TcpStream) -> bool {
        let mut gate = locked(&self.gate);
        let goes_on = gate.is_open && gate.opening == opening;
        if goes_on {
            gate.connections.extend(client.try_clone());
        }
        goes_on
    }

    /// One connection, request after request.
    fn converse(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut buffer = Vec::new();
        while let Some(request) = read_request(&mut client, &mut buffer)? {
            let trouble = self.trouble_of(&request.path);
            let number = {
                let mut requests = locked(&self.requests);
                requests.push(request.clone());
                requests.len() - 1
            };
            let (answer, way) = match trouble {
                None => ((self.service)(&request), Way::Whole),
                Some(Trouble::Status(status)) => (Answer::error(status, "Told to fail"), Way::Whole),
                Some(Trouble::TooMany(seconds)) => {
                    (Answer::error(429, "Too many requests").header("Retry-After", seconds), Way::Whole)
                }
                Some(Trouble::Hang) => return wait_for_the_end(&mut client),
                Some(Trouble::HalfAnswer) => ((self.service)(&request), Way::Half),
                Some(Trouble::NoAnswer) => ((self.service)(&request), Way::Nothing),
                Some(Trouble::Html) => (page(), Way::Whole),
                Some(Trouble::WrongJson) => {
                    let mut answer = Answer::json(200, &Value::Null);
                    answer.body = r#"{"success":true,"data":{"status":"#.to_owned();
                    (answer, Way::Whole)
                }
                Some(Trouble::Slow(time)) => {
                    let answer = (self.service)(&request);
                    thread::sleep(time);
                    (answer, Way::Whole)
                }
                Some(Trouble::Held(until)) => {
                    let _ = until.recv();
                    ((self.service)(&request), Way::Whole)
                }
            };
            locked(&self.requests)[number].answered = Some(answer.status);
            let bytes = encode(&answer);
            match way {
                Way::Whole => client.write_all(&bytes)?,
                Way::Half => {
                    client.write_all(&bytes[..bytes.len() - answer.body.len() / 2 - 1])?;
                    return client.shutdown(Shutdown::Both);
                }
                Way::Nothing => return client.shutdown(Shutdown::Both),
            }
        }
        Ok(())
    }

    fn trouble_of(&self, path: &str) -> Option<Trouble> {
        let mut rules = locked(&self.rules);
        let rule = rules.iter_mut().find(|rule| rule.left != Some(0) && path.contains(&rule.path))?;
        if let Some(left) = &mut rule.left {
            *left -= 1;
        }
        Some(rule.trouble.clone())
    }
}

/// How much of an answer leaves.
enum Way {
    Whole,
    Half,
    Nothing,
}

fn page() -> Answer {
    let body = "<!DOCTYPE html><title>Welcome</title><p>It works!".to_owned();
    Answer { status: 200, headers: vec![("Content-Type", "text/html".to_owned())], body }
}

/// Reads on until the other side, or [`Server::close`], ends the connection.
fn wait_for_the_end(client: &mut TcpStream) -> io::Result<()> {
    let mut piece = [0; 1024];
    while client.read(&mut piece)? > 0 {}
    Ok(())
}

fn encode(answer: &Answer) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {} Answer\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    text += &answer.body;
    text.into_bytes()
}

/// `None` when the connection ended between two requests. `buffer` keeps what was read too far.
fn read_request(client: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut piece = [0; 16 * 1024];
    let head_length = loop {
        if let Some(position) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break position + 4;
        }
        match client.read(&mut piece)? {
            0 => return Ok(None),
            length => buffer.extend_from_slice(&piece[..length]),
        }
    };
    let (at, unix_s) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let head = String::from_utf8(buffer[..head_length].to_vec()).map_err(io::Error::other)?;
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path) =
        (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut request = Request { method, path, headers, body: Vec::new(), at, unix_s, answered: None };
    assert!(request.header("transfer-encoding").is_none(), "the worker tells the length of what it sends");
    let length: usize = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    if request.header("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    while buffer.len() < head_length + length {
        match client.read(&mut piece)? {
            0 => return Ok(None),
            read => buffer.extend_from_slice(&piece[..read]),
        }
    }
    request.body = buffer[head_length..head_length + length].to_vec();
    buffer.drain(..head_length + length);
    Ok(Some(request))
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
