//! Through small proxies that check what they are told.

use super::*;

const LOGIN: &str = "me%40home:p%3Aw";

/// What a proxy was asked for, once it has carried everything.
type Asked = JoinHandle<Vec<u8>>;

/// A proxy for one connection. `admit` talks with the client and says whether it may pass to `server`.
fn proxy(
    server: SocketAddr,
    admit: impl FnOnce(&mut TcpStream) -> (Vec<u8>, bool) + Send + 'static,
) -> (u16, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let (asked, passes) = admit(&mut client);
        if passes {
            let mut server = TcpStream::connect(server).unwrap();
            let (mut up, mut back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let upwards = thread::spawn(move || {
                drop(std::io::copy(&mut up, &mut back));
                drop(back.shutdown(std::net::Shutdown::Write));
            });
            drop(std::io::copy(&mut server, &mut client));
            drop(client.shutdown(std::net::Shutdown::Write));
            upwards.join().unwrap();
        }
        asked
    });
    (port, thread)
}

/// Speaks HTTP: whoever brings this line may pass.
fn http(line: &'static str) -> impl FnOnce(&mut TcpStream) -> (Vec<u8>, bool) + Send {
    move |client| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let passes = String::from_utf8_lossy(&head).lines().any(|found| found == line);
        let answer = if passes { "200 Connection established" } else { "407 Proxy Authentication Required" };
        client.write_all(format!("HTTP/1.1 {answer}\r\nVia: test\r\n\r\n").as_bytes()).unwrap();
        (head, passes)
    }
}

/// Speaks SOCKS5 with name and password.
fn socks5(client: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut methods = [0; 4];
    client.read_exact(&mut methods).unwrap();
    assert_eq!(methods, [5, 2, 0, 2]);
    client.write_all(&[5, 2]).unwrap();
    let mut login = [0; 13];
    client.read_exact(&mut login).unwrap();
    let known = &login == b"\x01\x07me@home\x03p:w";
    client.write_all(&[1, u8::from(!known)]).unwrap();
    if !known {
        return (login.to_vec(), false);
    }
    let mut request = [0; 10];
    client.read_exact(&mut request).unwrap();
    client.write_all(&[5, 0, 0, 3, 4]).unwrap();
    client.write_all(b"here\x00\x50").unwrap();
    (request.to_vec(), true)
}

fn address(target: &Target) -> SocketAddr {
    format!("{}:{}", target.host, target.port).parse().unwrap()
}

fn greet(mut served: Served) {
    served.send(Message::Binary(b"hello through it".to_vec().into())).unwrap();
    while served.read().is_ok() {}
}

#[test]
fn an_http_proxy_with_a_login_is_passed_by_connect() {
    let (mut target, server, _dir) = serve(greet);
    // "me@home:p:w"
    let (port, asked) = proxy(address(&target), http("Proxy-Authorization: Basic bWVAaG9tZTpwOnc="));
    target.proxy = Some(Proxy::parse(&format!("http://{LOGIN}@127.0.0.1:{port}")).unwrap());
    let mut connection = target.dial().unwrap();
    assert_eq!(read(&mut connection, 16), b"hello through it");
    connection.close();
    server.join().unwrap();
    let asked = String::from_utf8(asked.join().unwrap()).unwrap();
    assert!(asked.starts_with(&format!("CONNECT 127.0.0.1:{} HTTP/1.1\r\n", target.port)), "{asked}");
}

#[test]
fn a_socks5_proxy_with_a_login_is_passed() {
    let (mut target, server, _dir) = serve(greet);
    let (port, asked) = proxy(address(&target), socks5);
    target.proxy = Some(Proxy::parse(&format!("socks5://{LOGIN}@127.0.0.1:{port}")).unwrap());
    let mut connection = target.dial().unwrap();
    assert_eq!(read(&mut connection, 16), b"hello through it");
    connection.close();
    server.join().unwrap();
    let [high, low] = target.port.to_be_bytes();
    assert_eq!(asked.join().unwrap(), [5, 1, 0, 1, 127, 0, 0, 1, high, low]);
}

#[test]
fn a_proxy_that_refuses_or_is_none_is_told_apart() {
    let nowhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let dial = |url: String| {
        let target = Target::new("wss://127.0.0.1:9/", None, Some(Proxy::parse(&url).unwrap())).unwrap();
        target.dial().map(drop).unwrap_err()
    };
    let (port, _) = proxy(nowhere, http("Proxy-Authorization: Basic bWVAaG9tZTpwOnc="));
    let error = dial(format!("http://you:p%3Aw@127.0.0.1:{port}"));
    assert!(matches!(error, DialError::Proxy(ProxyError::Login)), "{error}");
    let (port, _) = proxy(nowhere, socks5);
    let error = dial(format!("socks5://me%40hom:p%3Aw1@127.0.0.1:{port}"));
    assert!(matches!(error, DialError::Proxy(ProxyError::Login)), "{error}");
    let refuses = |client: &mut TcpStream| {
        client.read_exact(&mut [0; 3]).unwrap();
        client.write_all(&[5, 0]).unwrap();
        client.read_exact(&mut [0; 10]).unwrap();
        client.write_all(&[5, 2, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        (Vec::new(), false)
    };
    let (port, _) = proxy(nowhere, refuses);
    let error = dial(format!("socks5://127.0.0.1:{port}"));
    assert_eq!(error.to_string(), "the proxy refuses: not allowed by its rules");
    let (port, _) = proxy(nowhere, |client| {
        client.read_exact(&mut [0; 3]).unwrap();
        client.write_all(b"SSH-2.0-x").unwrap();
        (Vec::new(), false)
    });
    let error = dial(format!("socks5://127.0.0.1:{port}"));
    assert!(matches!(error, DialError::Proxy(ProxyError::NotAProxy)), "{error}");
}
