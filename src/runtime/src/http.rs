//! `/metrics` and `/health` over HTTP/1.1, for monitoring on this machine.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | Prometheus' text format |
//! | `/health`, `/health/ready` | 200 when all ports are open, 503 before and during a stop; `store` says whether it writes |
//! | `/health/live` | 200: the process answers |
//!
//! A connection carries one request and lives for [`LONGEST`] at most; there are [`CONNECTIONS`] of them at most, more
//! wait unaccepted.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::house::House;
use crate::metrics::{Snapshot, render};

/// Most connections at a time.
const CONNECTIONS: usize = 64;
/// Longest time for a request's head to come.
const HEAD: Duration = Duration::from_secs(5);
/// Longest life of a connection.
const LONGEST: Duration = Duration::from_secs(30);
/// Largest request head, in bytes.
const BUFFER: usize = 8 << 10;
/// Rest after the process ran out of file descriptors.
const REST: Duration = Duration::from_millis(100);

/// What is asked for here.
trait Source: Send + Sync + 'static {
    fn metrics(&self) -> String;
    fn is_ready(&self) -> bool;
    /// `ok`, `failing` while it cannot write, or `off`.
    fn store(&self) -> &'static str;
}

impl Source for House {
    fn metrics(&self) -> String {
        render(&Snapshot::take(self))
    }

    fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    fn store(&self) -> &'static str {
        match &self.store {
            None => "off",
            Some(store) if store.failure().is_some() => "failing",
            Some(_) => "ok",
        }
    }
}

/// Serves until the task is ended, and with it all connections.
pub async fn serve(listener: TcpListener, house: Arc<House>) {
    serve_from(listener, house).await;
}

async fn serve_from<S: Source>(listener: TcpListener, source: Arc<S>) {
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        if open.len() >= CONNECTIONS {
            open.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((socket, _)) => {
                open.spawn(tokio::time::timeout(LONGEST, converse(socket, source.clone())));
            }
            Err(error) => {
                tracing::warn!(%error, "http: cannot accept; pausing");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn converse<S: Source>(socket: TcpStream, source: Arc<S>) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), &*source);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "http");
    }
}

fn answer<S: Source>(method: &Method, path: &str, source: &S) -> Response<String> {
    if method != Method::GET && method != Method::HEAD {
        let mut response =
            respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "Only GET is served.\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", source.metrics()),
        "/health" | "/health/ready" => health(source.is_ready(), source.store()),
        "/health/live" => respond(StatusCode::OK, "application/json", json!({"status": "live"}).to_string()),
        _ => respond(StatusCode::NOT_FOUND, "text/plain", "Here are /metrics and /health.\n".to_owned()),
    }
}

fn health(is_ready: bool, store: &str) -> Response<String> {
    let (status, word) =
        if is_ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not_ready") };
    let body = json!({"status": word, "live": true, "ready": is_ready, "store": store, "version": env!("CARGO_PKG_VERSION")});
    respond(status, "application/json", body.to_string())
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Fixed(bool);

    impl Source for Fixed {
        fn metrics(&self) -> String {
            "tidegate_clients 3\n".to_owned()
        }

        fn is_ready(&self) -> bool {
            self.0
        }

        fn store(&self) -> &'static str {
            "ok"
        }
    }

    fn run<F: Future>(is_ready: bool, test: impl FnOnce(std::net::SocketAddr) -> F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(serve_from(listener, Arc::new(Fixed(is_ready))));
            let output = test(address).await;
            server.abort();
            output
        })
    }

    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
    }

    #[test]
    fn metrics_and_health_are_served_and_the_connection_ends() {
        run(true, async |address| {
            let answer = ask(address, &get("/metrics")).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
            assert!(answer.ends_with("\r\n\r\ntidegate_clients 3\n"), "{answer}");
            for path in ["/health", "/health/ready"] {
                let answer = ask(address, &get(path)).await;
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"status\":\"ready\""));
            }
        });
    }

    #[test]
    fn a_node_that_is_not_ready_is_live() {
        run(false, async |address| {
            assert!(ask(address, &get("/health")).await.starts_with("HTTP/1.1 503 "));
            assert!(ask(address, &get("/health/ready")).await.starts_with("HTTP/1.1 503 "));
            assert!(ask(address, &get("/health/live")).await.starts_with("HTTP/1.1 200 "));
        });
    }

    #[test]
    fn other_requests_are_refused_by_status() {
        run(true, async |address| {
            assert!(ask(address, &get("/")).await.starts_with("HTTP/1.1 404 "));
            let post = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
            assert!(ask(address, post).await.starts_with("HTTP/1.1 405 "));
            assert!(ask(address, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
            let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(BUFFER));
            assert!(ask(address, &long).await.starts_with("HTTP/1.1 4"));
        });
    }

    #[test]
    fn who_says_nothing_does_not_keep_others_out_for_long() {
        run(true, async |address| {
            let mut silent = Vec::new();
            for _ in 0..CONNECTIONS {
                silent.push(TcpStream::connect(address).await.unwrap());
            }
            let served = tokio::time::timeout(HEAD * 2, ask(address, &get("/health"))).await;
            assert!(served.unwrap().starts_with("HTTP/1.1 200 "));
        });
    }
}
