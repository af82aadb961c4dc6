//! A server that looks like S3 and is careless with conditions, as some real ones are.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use md5::{Digest as _, Md5};

use super::S3Server;
use crate::common::proxy::{Request, header};

/// What it does with conditions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Carelessness {
    /// Answers 200 and writes, whatever the condition.
    Ignores,
    /// Keeps them when asked by one, but looks first and writes later.
    Races,
}

/// Keeps everything in memory, checks no signature, one request per connection. Ends with the value.
pub struct Careless {
    pub server: S3Server,
    is_stopped: Arc<AtomicBool>,
}

type Objects = Mutex<BTreeMap<String, Vec<u8>>>;

impl Careless {
    pub fn start(carelessness: Carelessness) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (objects, is_stopped) = (Arc::new(Objects::default()), Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&is_stopped);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                let objects = Arc::clone(&objects);
                thread::spawn(move || serve(client, &objects, carelessness));
            }
        });
        Self { server: S3Server { address, access_key: "anybody", secret_key: "anything" }, is_stopped }
    }
}

impl Drop for Careless {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.server.address);
    }
}

fn serve(mut client: TcpStream, objects: &Objects, carelessness: Carelessness) -> io::Result<()> {
    let Some(request) = Request::read(&mut client)? else { return Ok(()) };
    let mut words = request.head.split(' ');
    let (method, url) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
    let (status, etag, content) = match method {
        "PUT" if key.is_empty() => (200, None, Vec::new()),
        "PUT" => put(&request, objects, key, carelessness),
        "DELETE" => {
            objects.lock().unwrap().remove(key);
            (204, None, Vec::new())
        }
        _ if key.is_empty() => (200, None, listing(objects, query).into_bytes()),
        _ => match objects.lock().unwrap().get(key) {
            Some(content) => (200, Some(etag(content)), content.clone()),
            None => (404, None, b"<Error><Code>NoSuchKey</Code></Error>".to_vec()),
        },
    };
    let etag = etag.map_or(String::new(), |etag| format!("ETag: \"{etag}\"\r\n"));
    let length = content.len();
    write!(
        client,
        "HTTP/1.1 {status} Status\r\n{etag}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    if method == "HEAD" { Ok(()) } else { client.write_all(&content) }
}

fn put(
    request: &Request,
    objects: &Objects,
    key: &str,
    carelessness: Carelessness,
) -> (u16, Option<String>, Vec<u8>) {
    if carelessness == Carelessness::Races {
        let now = objects.lock().unwrap().get(key).map(|content| format!("\"{}\"", etag(content)));
        let is_refused = header(&request.head, "if-none-match").is_some() && now.is_some()
            || header(&request.head, "if-match").is_some_and(|wanted| now.as_deref() != Some(wanted));
        if is_refused {
            return (412, None, b"<Error><Code>PreconditionFailed</Code></Error>".to_vec());
        }
        // Wide enough that the others look before this one writes.
        thread::sleep(Duration::from_millis(30));
    }
    objects.lock().unwrap().insert(key.to_owned(), request.body.clone());
    (200, Some(etag(&request.body)), Vec::new())
}

fn listing(objects: &Objects, query: &str) -> String {
    let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or_default();
    let prefix = prefix.replace("%2F", "/");
    let contents: String = objects
        .lock()
        .unwrap()
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(key, content)| {
            let (etag, size) = (etag(content), content.len());
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                 <ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size></Contents>"
            )
        })
        .collect();
    format!("<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>")
}

fn etag(content: &[u8]) -> String {
    Md5::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
