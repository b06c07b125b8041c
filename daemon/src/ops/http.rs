//! Health and metrics over HTTP, for supervisors, load balancers and Prometheus.
//!
//! `/healthz`: the process runs its event loop. `/readyz`: it should get clients, and if not, why, by dependency. `/metrics`:
//! what it counts, in the OpenMetrics text format.
//!
//! Invariants: nothing here changes anything; a slow or greedy visitor is bounded in time and number and never holds up
//! the daemon; probes are bounded in time, and one that hangs counts as failed.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::metrics::Metrics;

/// Most visitors at once; more wait in the kernel's queue.
const VISITORS_MAX: usize = 32;

/// How long a visitor may take for its request line and headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a visitor may stay in all.
const VISIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest buffer of a visitor's request.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait after a failure to accept, as when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Asks a dependency whether it works; the error says why not.
pub type Probe = Box<dyn Fn() -> ProbeAnswer + Send + Sync>;

/// What a probe will have found.
pub type ProbeAnswer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Whether the daemon should get clients. At first it is starting, and should not.
#[derive(Default)]
pub struct Readiness {
    /// Empty as long as it is starting.
    probes: OnceLock<Vec<(&'static str, Probe)>>,
    /// What the start waits for, and why.
    waiting: Mutex<Option<(&'static str, String)>>,
    draining: AtomicBool,
}

/// The answer of `/readyz`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether all is well.
    pub ready: bool,
    /// Each dependency.
    pub checks: Vec<Checked>,
}

/// One dependency.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Its name.
    pub name: &'static str,
    /// Whether it works.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Readiness {
    /// Takes note of what the start waits for, and why.
    pub fn waits(&self, name: &'static str, reason: String) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some((name, reason));
    }

    /// Takes note that the daemon has started; from now on readiness depends on these. A second time changes nothing.
    pub fn started(&self, probes: Vec<(&'static str, Probe)>) {
        let _ = self.probes.set(probes);
    }

    /// Takes note that the daemon is about to stop: load balancers should look elsewhere.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Asks every dependency, one after the other.
    pub async fn report(&self) -> Report {
        let Some(probes) = self.probes.get() else { return self.starting() };
        let draining = self.draining.load(Ordering::Relaxed);
        let mut checks = vec![Checked {
            name: "serving",
            ok: !draining,
            reason: draining.then(|| "the daemon is stopping".to_owned()),
        }];
        for (name, probe) in probes {
            let answer = tokio::time::timeout(PROBE_TIMEOUT, probe()).await;
            let slow = || Err(format!("no answer within {} s", PROBE_TIMEOUT.as_secs()));
            let reason = answer.unwrap_or_else(|_| slow()).err();
            checks.push(Checked { name, ok: reason.is_none(), reason });
        }
        Report { ready: checks.iter().all(|check| check.ok), checks }
    }

    fn starting(&self) -> Report {
        let failed = |name, reason| Checked { name, ok: false, reason: Some(reason) };
        let mut checks = vec![failed("serving", "the daemon is starting".to_owned())];
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        checks.extend(waiting.map(|(name, reason)| failed(name, reason)));
        Report { ready: false, checks }
    }
}

/// What visitors are shown.
#[derive(Clone)]
pub struct Shown {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether clients are welcome.
    pub readiness: Arc<Readiness>,
}

/// Serves visitors until told to stop.
pub async fn serve(listener: TcpListener, shown: Shown, stop: CancellationToken) {
    let (visitors, places) = (TaskTracker::new(), Arc::new(Semaphore::new(VISITORS_MAX)));
    loop {
        // Nobody closes the semaphore.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (shown, stop) = (shown.clone(), stop.clone());
                visitors.spawn(async move {
                    tokio::select! {
                        _ = tokio::time::timeout(VISIT_TIMEOUT, visit(stream, shown)) => {}
                        () = stop.cancelled() => {}
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a visitor of the ops port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn visit(stream: TcpStream, shown: Shown) {
    let service = service_fn(|request| {
        let shown = shown.clone();
        async move { Ok::<_, Infallible>(answer(&request, &shown).await) }
    });
    let visit = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(REQUEST_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = visit {
        tracing::debug!(%error, "a visit of the ops port failed");
    }
}

async fn answer(request: &Request<Incoming>, shown: &Shown) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => {
            let report = shown.readiness.report().await;
            let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            match serde_json::to_string(&report) {
                Ok(json) => response(status, "application/json", json + "\n"),
                Err(error) => failed(&error),
            }
        }
        "/metrics" => match shown.metrics.render() {
            Ok(metrics) => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response(StatusCode::OK, kind, metrics)
            }
            Err(error) => failed(&error),
        },
        _ => text(StatusCode::NOT_FOUND, "here are /healthz, /readyz and /metrics\n"),
    }
}

fn failed(error: &dyn std::error::Error) -> Response<Full<Bytes>> {
    tracing::error!(%error, "cannot answer a visitor of the ops port");
    text(StatusCode::INTERNAL_SERVER_ERROR, "failed, see the log\n")
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text.to_owned())
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn probe(answer: fn() -> Result<(), String>) -> Probe {
        Box::new(move || Box::pin(async move { answer() }))
    }

    fn readiness(probes: Vec<(&'static str, Probe)>) -> Readiness {
        let readiness = Readiness::default();
        readiness.started(probes);
        readiness
    }

    async fn start(probes: Vec<(&'static str, Probe)>) -> (std::net::SocketAddr, Shown, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shown = Shown { metrics: Arc::default(), readiness: Arc::new(readiness(probes)) };
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(serve(listener, shown.clone(), stop.clone()));
        (address, shown, stop)
    }

    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: quail\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn each_page_answers_as_promised() {
        let (address, shown, _stop) = start(vec![("disk", probe(|| Ok(())))]).await;
        let answer = ask(address, "GET /healthz").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
        let answer = ask(address, "GET /readyz").await;
        let checks = r#"{"ready":true,"checks":[{"name":"serving","ok":true},{"name":"disk","ok":true}]}"#;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(checks), "{answer}");
        let answer = ask(address, "GET /metrics").await;
        assert!(answer.contains("content-type: application/openmetrics-text"), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
        assert!(ask(address, "GET /").await.starts_with("HTTP/1.1 404"));
        assert!(ask(address, "POST /metrics").await.starts_with("HTTP/1.1 405"));
        shown.readiness.drain();
        let answer = ask(address, "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("the daemon is stopping"), "{answer}");
    }

    #[tokio::test]
    async fn a_dependency_that_fails_or_hangs_is_named() {
        let hangs: Probe = Box::new(|| Box::pin(std::future::pending()));
        let broken = probe(|| Err("no route".to_owned()));
        let report = readiness(vec![("a", broken), ("b", hangs)]).report().await;
        assert!(!report.ready);
        let reasons: Vec<_> = report.checks.iter().map(|check| check.reason.as_deref()).collect();
        assert_eq!(reasons, [None, Some("no route"), Some("no answer within 2 s")]);
    }

    #[tokio::test]
    async fn a_start_names_what_it_waits_for() {
        let readiness = Readiness::default();
        assert!(!readiness.report().await.ready);
        readiness.waits("directory", "no route".to_owned());
        let report = readiness.report().await;
        let named: Vec<_> = report.checks.iter().map(|check| (check.name, check.reason.as_deref())).collect();
        let starting = ("serving", Some("the daemon is starting"));
        assert_eq!(named, [starting, ("directory", Some("no route"))]);
        readiness.started(Vec::new());
        assert!(readiness.report().await.ready);
    }

    #[tokio::test]
    async fn silent_visitors_do_not_keep_others_out_for_long() {
        let (address, _shown, _stop) = start(Vec::new()).await;
        let mut silent = Vec::new();
        for _ in 0..2 * VISITORS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(ask(address, "GET /healthz").await.starts_with("HTTP/1.1 200"));
    }
}
