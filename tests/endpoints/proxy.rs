//! A proxy of the test's own.
#![allow(dead_code, reason = "tests/peers_examples.rs uses a part of it")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A proxy that leads to one server whatever it is asked for, and the first lines and the
/// credentials it was asked with.
pub(crate) struct Proxy {
    pub(crate) address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(crate) fn start(target: &str) -> Proxy {
        Proxy::start_at("127.0.0.1:0", target)
    }

    /// One at an address of its own; where no target is given it leads to where it is asked to.
    pub(crate) fn start_at(address: &str, target: &str) -> Proxy {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (target, heads) = (target.to_owned(), Arc::new(Mutex::new(Vec::new())));
        let seen = Arc::clone(&heads);
        // Both threads of a connection end with it; this one with the process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (target, seen) = (target.clone(), Arc::clone(&seen));
                thread::spawn(move || relay(client, &target, &seen));
            }
        });
        Proxy { address, heads }
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn relay(mut client: TcpStream, target: &str, seen: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).unwrap();
    seen.lock().unwrap().push(text.clone());
    let asked = text.split(' ').nth(1).unwrap();
    let mut server = TcpStream::connect(if target.is_empty() { asked } else { target }).unwrap();
    if text.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    } else {
        // The absolute form becomes the one that a server expects; one request a connection.
        let (first, rest) = text.split_once("\r\n").unwrap();
        let url: Vec<_> = first.splitn(3, ' ').collect();
        let path = url[1].splitn(4, '/').nth(3).unwrap();
        let head = format!("{} /{path} HTTP/1.1\r\nConnection: close\r\n{rest}", url[0]);
        server.write_all(head.as_bytes()).unwrap();
    }
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Both);
}
