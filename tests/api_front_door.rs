//! The HTTP server under attack, through its public face: every weakness of a bare tiny_http, shown not to be one.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use whatsapp_worker::api::http::{HttpOptions, HttpServer, Request, Response};

const LOOPBACK: &str = "127.0.0.1:0";

fn options() -> HttpOptions {
    HttpOptions { threads: 4, ..HttpOptions::new("test", LOOPBACK.parse().unwrap()) }
}

/// Echoes what arrived; a few paths misbehave on purpose.
fn echo(request: Request) -> Response {
    match request.path().as_slice() {
        ["panic"] => panic!("asked to"),
        ["large"] => Response::bytes(200, "text/plain", vec![b'x'; 8 << 20]),
        ["empty"] => Response { status: 204, headers: Vec::new(), body: Vec::new() },
        _ => Response::json(
            200,
            &serde_json::json!({
                "method": request.method,
                "path": request.segments,
                "query": request.query,
                "headers": request.headers,
                "body": String::from_utf8_lossy(&request.body),
                "loopback": request.is_loopback,
            }),
        ),
    }
}

fn start(options: HttpOptions) -> HttpServer {
    HttpServer::start(options, Arc::new(echo)).unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Reads one answer and not a byte of the next: status, head, body.
fn read_answer(stream: &mut TcpStream) -> std::io::Result<(u16, String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok((status, head, body))
}

fn exchange(address: SocketAddr, request: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    read_answer(&mut stream).unwrap()
}

fn json(body: &[u8]) -> serde_json::Value {
    serde_json::from_slice(body).unwrap()
}

/// A plain request is answered, and quickly.
fn assert_serves(address: SocketAddr) {
    let begun = Instant::now();
    let (status, _, _) = exchange(address, b"GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(status, 200);
    // A silent client is dropped after 10 s: whoever had to wait for that would take longer.
    assert!(begun.elapsed() < Duration::from_secs(8), "took {:?}", begun.elapsed());
}

#[test]
fn a_request_reaches_the_handler_whole_and_its_answer_the_client() {
    let server = start(options());
    let (status, head, body) = exchange(
        server.local_addr(),
        b"POST /a%20b//c?x=1&y=%2B HTTP/1.1\r\nHost: h\r\nX-Test: v\r\nContent-Length: 5\r\n\r\nhello",
    );
    assert_eq!(status, 200, "{head}");
    assert!(!head.contains("tiny"), "{head}");
    let body = json(&body);
    assert_eq!(body["path"], serde_json::json!(["a b", "c"]));
    assert_eq!(body["query"], serde_json::json!([["x", "1"], ["y", "+"]]));
    assert_eq!(body["body"], "hello");
    assert_eq!(body["loopback"], true);
}

#[test]
fn a_connection_carries_many_requests_and_pipelined_ones_in_order() {
    let server = start(options());
    let mut stream = connect(server.local_addr());
    for round in 0..20 {
        let request = format!(
            "GET /r/{round}/a HTTP/1.1\r\nHost: h\r\n\r\nGET /r/{round}/b HTTP/1.1\r\nHost: h\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        for part in ["a", "b"] {
            let (status, _, body) = read_answer(&mut stream).unwrap();
            assert_eq!(
                (status, json(&body)["path"].clone()),
                (200, serde_json::json!(["r", round.to_string(), part]))
            );
        }
    }
}

#[test]
fn chunked_bodies_arrive_decoded_and_the_next_request_is_found() {
    let server = start(options());
    let mut stream = connect(server.local_addr());
    let request = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: 1\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n";
    for piece in request.chunks(7) {
        stream.write_all(piece).unwrap();
    }
    let (_, _, body) = read_answer(&mut stream).unwrap();
    let body = json(&body);
    assert_eq!(body["body"], "abcde");
    let names: Vec<&str> =
        body["headers"].as_array().unwrap().iter().map(|pair| pair[0].as_str().unwrap()).collect();
    assert!(!names.iter().any(|name| name.eq_ignore_ascii_case("transfer-encoding")), "{names:?}");
    assert_eq!(json(&read_answer(&mut stream).unwrap().2)["path"], serde_json::json!(["next"]));
}

#[test]
fn expect_100_continue_is_answered_before_the_body_comes() {
    let server = start(options());
    let mut stream = connect(server.local_addr());
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .unwrap();
    assert_eq!(read_answer(&mut stream).unwrap().0, 100);
    stream.write_all(b"ok").unwrap();
    assert_eq!(json(&read_answer(&mut stream).unwrap().2)["body"], "ok");
}

#[test]
fn head_and_http_1_0_and_connection_close_are_respected() {
    let server = start(options());
    let mut stream = connect(server.local_addr());
    stream.write_all(b"HEAD /ok HTTP/1.1\r\nHost: h\r\n\r\nGET /empty HTTP/1.0\r\n\r\n").unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    let (first, second) = all.split_once("\r\n\r\n").unwrap();
    assert!(first.starts_with("HTTP/1.1 200") && first.contains("Content-Length:"), "{first}");
    assert!(second.starts_with("HTTP/1.1 204") && second.contains("Connection: close"), "{second}");
}

#[test]
fn a_panic_in_the_handler_is_a_500_and_harms_nobody_else() {
    let server = start(options());
    let mut stream = connect(server.local_addr());
    for _ in 0..20 {
        stream.write_all(b"GET /panic HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let (status, _, body) = read_answer(&mut stream).unwrap();
        assert_eq!((status, json(&body)["code"].clone()), (500, "INTERNAL_ERROR".into()));
    }
    assert_serves(server.local_addr());
}

#[test]
fn an_absurd_content_length_is_413_and_the_server_lives() {
    let server = start(options());
    for length in ["200000000000000", "18446744073709551615", "99999999999999999999999"] {
        let request = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        let (status, _, body) = exchange(server.local_addr(), request.as_bytes());
        assert_eq!((status, json(&body)["details"]["field"].clone()), (413, "body".into()));
    }
    assert_serves(server.local_addr());
}

#[test]
fn ambiguous_framing_is_400_and_closes() {
    let server = start(options());
    for fields in [
        "Transfer-Encoding: identity\r\nContent-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: x\r\n",
        "Host: other\r\n",
        "Authorization: a\r\nAuthorization: b\r\n",
        "X-Name: J\u{f6}rg\r\n",
    ] {
        let mut stream = connect(server.local_addr());
        stream.write_all(format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\nabc").as_bytes()).unwrap();
        let (status, head, body) = read_answer(&mut stream).unwrap();
        assert_eq!(status, 400, "{fields:?}");
        assert!(head.contains("Connection: close"), "{head}");
        assert_eq!(json(&body)["success"], false);
        assert!(json(&body)["error"].is_string());
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0, "closed after {fields:?}");
    }
}

#[test]
fn odd_but_legal_requests_get_through() {
    let server = start(options());
    let mut stream = connect(server.local_addr());
    for request in [
        "GET /?a=%7B%7D&b=[]'\"<>|^`\\ HTTP/1.1\r\nHost: h\r\n\r\n",
        "BREW /pot HTTP/1.1\r\nHost: h\r\n\r\n",
        "get /low HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n!#$%&'*+-.^_`|~09azAZ: odd name\r\nEmpty:\r\nTab:\ta\tb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nTE: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 000000003\r\n\r\nabc",
    ] {
        stream.write_all(request.as_bytes()).unwrap();
        let (status, _, _) = read_answer(&mut stream).unwrap();
        assert_eq!(status, 200, "{request}");
    }
}

#[test]
fn two_thousand_silent_connections_do_not_keep_a_good_request_waiting() {
    let server = start(HttpOptions { max_connections: 256, ..options() });
    let mut silent = Vec::new();
    for _ in 0..2000 {
        silent.push(connect(server.local_addr()));
        if silent.len().is_multiple_of(400) {
            assert_serves(server.local_addr());
        }
    }
    assert_serves(server.local_addr());
}

#[test]
fn a_thousand_half_sent_requests_do_not_keep_a_good_request_waiting_and_end_with_408() {
    let server = start(HttpOptions { head_timeout: Duration::from_secs(2), ..options() });
    let mut halves = Vec::new();
    for _ in 0..1000 {
        let mut stream = connect(server.local_addr());
        stream.write_all(b"POST /session/create HTTP/1.1\r\nHost: h\r\nConte").unwrap();
        halves.push(stream);
    }
    assert_serves(server.local_addr());
    let (status, _, body) = read_answer(halves.last_mut().unwrap()).unwrap();
    assert_eq!((status, json(&body)["code"].clone()), (408, "REQUEST_TIMEOUT".into()));
    assert_serves(server.local_addr());
}

#[test]
fn an_endless_header_line_is_cut_off() {
    let server = start(options());
    let mut stream = connect(server.local_addr());
    stream.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    let block = vec![b'a'; 1 << 20];
    // 300 MB if we are let; the answer comes after 16 KiB.
    let sent = (0..300).take_while(|_| stream.write_all(&block).is_ok()).count();
    assert!(sent < 100, "{sent} MiB were swallowed");
    let mut fresh = connect(server.local_addr());
    fresh.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    fresh.write_all(&block[..20_000]).unwrap();
    assert_eq!(read_answer(&mut fresh).unwrap().0, 431);
    assert_serves(server.local_addr());
}

#[test]
fn a_ten_megabyte_body_is_413_and_the_answer_can_be_read() {
    let server = start(options());
    let mut stream = connect(server.local_addr());
    stream.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10485760\r\n\r\n").unwrap();
    for _ in 0..10 {
        stream.write_all(&vec![b'a'; 1 << 20]).unwrap();
    }
    assert_eq!(read_answer(&mut stream).unwrap().0, 413);
    let mut chunked = connect(server.local_addr());
    chunked.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\na00000\r\n").unwrap();
    assert_eq!(read_answer(&mut chunked).unwrap().0, 413);
}

#[test]
fn pipelining_without_reading_is_stopped_and_others_are_served() {
    let server = start(HttpOptions { write_timeout: Duration::from_secs(2), ..options() });
    let mut greedy = connect(server.local_addr());
    greedy.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let requests = b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000);
    let mut sent = 0;
    while sent < 64 << 20 {
        match greedy.write(&requests) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    assert!(sent < 32 << 20, "{sent} bytes of requests were taken in");
    for _ in 0..10 {
        assert_serves(server.local_addr());
    }
    // Who does not read is cut off in the end, with its requests unread: the kernel then resets the connection.
    let deadline = Instant::now() + Duration::from_secs(30);
    while greedy.write(b"GET /").map_err(|error| error.kind()) != Err(ErrorKind::ConnectionReset) {
        assert!(Instant::now() < deadline, "the connection is still open");
    }
}

#[test]
fn stalled_bodies_hold_no_handler_and_time_out() {
    let server = start(HttpOptions { threads: 2, body_timeout: Duration::from_secs(1), ..options() });
    let mut stalled: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut stream = connect(server.local_addr());
            stream.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\nhalf").unwrap();
            stream
        })
        .collect();
    assert_serves(server.local_addr());
    for stream in &mut stalled {
        assert_eq!(read_answer(stream).unwrap().0, 408);
    }
}

#[test]
fn a_large_answer_reaches_a_reader_that_takes_its_time() {
    let server = start(options());
    let mut stream = connect(server.local_addr());
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let (status, _, body) = read_answer(&mut stream).unwrap();
    assert_eq!((status, body.len()), (200, 8 << 20));
    assert!(body.iter().all(|byte| *byte == b'x'));
}

#[test]
fn requests_beyond_the_handlers_wait_their_turn() {
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let handler = move |request: Request| {
        if request.path() == ["wait"] {
            gate.lock().unwrap().recv().unwrap();
        }
        Response::text(200, "done")
    };
    let server = HttpServer::start(HttpOptions { threads: 1, ..options() }, Arc::new(handler)).unwrap();
    let mut clients: Vec<TcpStream> = (0..5).map(|_| connect(server.local_addr())).collect();
    for client in &mut clients {
        client.write_all(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    }
    for _ in &clients {
        release.send(()).unwrap();
    }
    for client in &mut clients {
        assert_eq!(read_answer(client).unwrap().0, 200);
    }
}

#[test]
fn an_express_path_is_answered_while_every_handler_is_busy() {
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let handler = move |request: Request| {
        if request.path() != ["health"] {
            gate.lock().unwrap().recv().unwrap();
        }
        Response::text(200, "done")
    };
    let options = HttpOptions { threads: 2, express: &["/health"], ..options() };
    let server = HttpServer::start(options, Arc::new(handler)).unwrap();
    let mut busy: Vec<TcpStream> = (0..6).map(|_| connect(server.local_addr())).collect();
    for client in &mut busy {
        client.write_all(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    }
    for target in ["/health", "/health?x=1"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(exchange(server.local_addr(), request.as_bytes()).0, 200);
    }
    busy.iter().for_each(|_| release.send(()).unwrap());
    for client in &mut busy {
        assert_eq!(read_answer(client).unwrap().0, 200);
    }
}

#[test]
fn a_client_that_leaves_early_does_not_disturb_the_next() {
    let server = start(HttpOptions { threads: 1, ..options() });
    for _ in 0..50 {
        let mut stream = connect(server.local_addr());
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        drop(stream);
    }
    assert_serves(server.local_addr());
}

#[test]
fn stopping_lets_a_request_under_way_finish_and_refuses_new_connections() {
    let (entered, seen) = mpsc::channel::<()>();
    let entered = Mutex::new(entered);
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let handler = move |_: Request| {
        entered.lock().unwrap().send(()).unwrap();
        gate.lock().unwrap().recv().unwrap();
        Response::text(200, "finished")
    };
    let server = HttpServer::start(options(), Arc::new(handler)).unwrap();
    let address = server.local_addr();
    let mut stream = connect(address);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    seen.recv_timeout(Duration::from_secs(5)).unwrap();
    let stopper = std::thread::spawn(move || server.stop(Duration::from_secs(5)));
    while TcpStream::connect(address).is_ok() {
        std::thread::yield_now();
    }
    release.send(()).unwrap();
    let (status, head, body) = read_answer(&mut stream).unwrap();
    assert_eq!((status, body.as_slice()), (200, &b"finished"[..]));
    assert!(head.contains("Connection: close"), "{head}");
    stopper.join().unwrap();
}

#[test]
fn running_out_of_file_descriptors_is_survived() {
    // The limit is per process, so the attack runs in a process of its own: this test binary, asked for the case.
    if std::env::var_os(CHILD).is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["running_out_of_file_descriptors_is_survived", "--exact", "--nocapture"])
            .env(CHILD, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let server = start(options());
    let address = server.local_addr();
    assert_serves(address);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let lowered = rustix::process::Rlimit { current: Some(open + 20), maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, lowered).unwrap();
    // Client and server ends share the limit here: connect until nothing is left, then let go.
    let mut held = Vec::new();
    for _ in 0..3 {
        while let Ok(stream) = TcpStream::connect(address) {
            held.push(stream);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!held.is_empty(), "the limit was reached by connections");
        held.clear();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let answer = TcpStream::connect(address).and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                stream.write_all(b"GET /ok HTTP/1.1\r\nHost: h\r\n\r\n")?;
                read_answer(&mut stream)
            });
            if answer.is_ok_and(|(status, _, _)| status == 200) {
                break;
            }
            assert!(Instant::now() < deadline, "the server did not come back");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

const CHILD: &str = "FRONT_DOOR_TEST_CHILD";

/// Run by hand: `cargo test --release --test api_front_door cpu -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn cpu_per_request() {
    const REQUESTS: u32 = 50_000;
    if let Ok(address) = std::env::var(CHILD) {
        let mut stream = connect(address.parse().unwrap());
        stream.set_nodelay(true).unwrap();
        let body = r#"{"to":"6281200000001","type":"text","message":"hello"}"#;
        let request = format!(
            "POST /session/a/send HTTP/1.1\r\nHost: localhost:8001\r\nUser-Agent: bench\r\nAccept: */*\r\nAuthorization: Bearer 0123456789abcdef\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        for _ in 0..REQUESTS {
            stream.write_all(request.as_bytes()).unwrap();
            assert_eq!(read_answer(&mut stream).unwrap().0, 200);
        }
        return;
    }
    let answer =
        |_| Response::json(200, &serde_json::json!({"success": true, "data": {"messageId": "3EB0"}}));
    for clients in [1, 10] {
        let server = HttpServer::start(HttpOptions { threads: 64, ..options() }, Arc::new(answer)).unwrap();
        let ticks = || {
            let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
            let fields: Vec<u64> = stat
                .rsplit(')')
                .next()
                .unwrap()
                .split_whitespace()
                .filter_map(|field| field.parse().ok())
                .collect();
            fields[10] + fields[11]
        };
        let (before, begun) = (ticks(), Instant::now());
        let children: Vec<_> = (0..clients)
            .map(|_| {
                std::process::Command::new(std::env::current_exe().unwrap())
                    .args(["cpu_per_request", "--exact", "--ignored", "--nocapture"])
                    .env(CHILD, server.local_addr().to_string())
                    .stdout(std::process::Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        let requests = REQUESTS * clients;
        let cpu_us = (ticks() - before) as f64 * 10_000.0 / f64::from(requests);
        let rate = f64::from(requests) / begun.elapsed().as_secs_f64();
        println!("{clients} clients: {cpu_us:.1} us CPU per request, {rate:.0} requests/s");
    }
}
