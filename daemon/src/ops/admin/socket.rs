//! The daemon's end of the admin socket: who asks, what, and the answer.
//!
//! Invariants: a request is bounded in length and in the time it may take to come, connections in number, an answer in the
//! time its reader may take; a command that was begun is carried through, even if its client goes away.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::path::{self, AdminSocketError, SocketFile};
use super::wire::{Answer, Failed, REQUEST_BYTES_MAX, Request};

/// Most requests at once.
const CONNECTIONS_MAX: usize = 16;

/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may leave an answer unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to leave the socket alone after it could not be accepted from, as when files are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who asks, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// The process, if it is known.
    pub pid: Option<i32>,
}

/// The client has gone, or does not read its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client has gone")]
pub struct PeerGone;

/// Carries out requests.
pub trait Handler: Send + Sync + 'static {
    /// Carries out a request, sending what its answer has besides the last line. Runs to its end even if the client has
    /// gone; only lists may be cut short.
    fn handle(
        &self,
        peer: Peer,
        request: Request,
        answers: &mut Answers,
    ) -> impl Future<Output = Result<(), Failed>> + Send;
}

/// Where the answers of one request go.
#[derive(Debug)]
pub struct Answers {
    write: BufWriter<OwnedWriteHalf>,
}

/// The socket, bound. Its file goes when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    /// Dropped first.
    _file: SocketFile,
    listener: UnixListener,
}

impl AdminSocket {
    /// Makes the socket. Must be called inside a runtime.
    ///
    /// # Errors
    /// See [`AdminSocketError`].
    pub fn bind(path: &Path) -> Result<Self, AdminSocketError> {
        let (listener, file) = path::bind(path)?;
        let failed = |source| AdminSocketError::Io { action: "listen on", path: path.to_owned(), source };
        Ok(Self { _file: file, listener: UnixListener::from_std(listener).map_err(failed)? })
    }

    /// Answers requests until told to stop. Each runs on `tasks`, so that who stops can wait for them.
    pub async fn serve<H: Handler>(self, handler: Arc<H>, tasks: TaskTracker, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the admin socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                refuse(&stream);
                continue;
            };
            let handler = handler.clone();
            tasks.spawn(async move {
                answer(stream, &*handler).await;
                drop(place);
            });
        }
    }
}

impl Answers {
    /// Sends one line of the answer.
    ///
    /// # Errors
    /// [`PeerGone`].
    pub async fn send(&mut self, answer: &Answer) -> Result<(), PeerGone> {
        let line = line(answer);
        within(self.write.write_all(&line)).await
    }
}

async fn within(write: impl Future<Output = io::Result<()>>) -> Result<(), PeerGone> {
    match tokio::time::timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(PeerGone),
    }
}

async fn answer(stream: UnixStream, handler: &impl Handler) {
    let peer = match stream.peer_cred() {
        Ok(credentials) => Peer { uid: credentials.uid(), pid: credentials.pid() },
        Err(error) => {
            tracing::warn!(%error, "the admin socket does not tell who asks");
            return;
        }
    };
    let (read, write) = stream.into_split();
    let mut answers = Answers { write: BufWriter::new(write) };
    let result = match tokio::time::timeout(REQUEST_TIMEOUT, read_request(read)).await {
        Ok(Ok(request)) => handler.handle(peer, request, &mut answers).await,
        Ok(Err(failed)) => Err(failed),
        Err(_) => Err(Failed::new("request", "the request did not arrive in time")),
    };
    let last = result.map_or_else(Answer::Error, |()| Answer::Done);
    // A client that is gone wants no answer.
    if answers.send(&last).await.is_ok() {
        let _ = within(answers.write.shutdown()).await;
    }
}

async fn read_request(read: OwnedReadHalf) -> Result<Request, Failed> {
    let mut line = Vec::new();
    let mut read = BufReader::new(read).take(REQUEST_BYTES_MAX as u64 + 1);
    let wrong = |text: String| Failed::new("request", text);
    read.read_until(b'\n', &mut line).await.map_err(|error| wrong(format!("read the request: {error}")))?;
    if line.len() > REQUEST_BYTES_MAX {
        return Err(wrong(format!("a request has at most {REQUEST_BYTES_MAX} bytes")));
    }
    // The error names a place and what was expected there; it could quote a secret, so it stays here.
    serde_json::from_slice(&line).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        wrong(format!("not a request that this daemon knows (line {line}, column {column})"))
    })
}

/// Tells a client that there are too many. Its socket's buffer is empty, so this does not wait.
fn refuse(stream: &UnixStream) {
    let failed = Failed::new("busy", "too many admin requests at once");
    let _ = stream.try_write(&line(&Answer::Error(failed)));
}

fn line(answer: &Answer) -> Vec<u8> {
    // Texts and numbers always become JSON.
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Read, Write};

    use super::super::wire::Secret;
    use super::*;

    /// Answers a list with as many secrets as it is asked for, and fails at everything else.
    struct Counting;

    impl Handler for Counting {
        async fn handle(&self, _: Peer, request: Request, answers: &mut Answers) -> Result<(), Failed> {
            let Request::CreateInvites { count } = request else {
                return Err(Failed::new("unknown", request.name()));
            };
            for number in 0..count {
                let answer = Answer::InviteCode(Secret(number.to_string()));
                answers.send(&answer).await.map_err(|gone| Failed::new("gone", gone.to_string()))?;
            }
            Ok(())
        }
    }

    struct Served {
        directory: tempfile::TempDir,
        tasks: TaskTracker,
        stop: CancellationToken,
    }

    impl Served {
        fn start() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let socket = AdminSocket::bind(&directory.path().join("admin.sock")).unwrap();
            let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
            tasks.spawn(socket.serve(Arc::new(Counting), tasks.clone(), stop.clone()));
            Self { directory, tasks, stop }
        }

        fn connect(&self) -> std::os::unix::net::UnixStream {
            path::connect(&self.directory.path().join("admin.sock")).unwrap()
        }

        async fn ask(&self, request: Vec<u8>) -> Vec<Answer> {
            let mut stream = self.connect();
            tokio::task::spawn_blocking(move || {
                // A request that is too long may be answered before it has been written.
                let _ = stream.write_all(&request);
                let mut answers = Vec::new();
                for line in std::io::BufReader::new(stream).lines() {
                    answers.push(serde_json::from_str(&line.unwrap()).unwrap());
                    if matches!(answers.last(), Some(Answer::Done | Answer::Error(_))) {
                        break;
                    }
                }
                answers
            })
            .await
            .unwrap()
        }
    }

    fn request(request: &Request) -> Vec<u8> {
        let mut line = serde_json::to_vec(request).unwrap();
        line.push(b'\n');
        line
    }

    #[tokio::test]
    async fn a_long_answer_comes_in_order_and_ends_with_done() {
        let served = Served::start();
        let answers = served.ask(request(&Request::CreateInvites { count: 5000 })).await;
        assert_eq!(answers.len(), 5001);
        let number = |at: usize| Answer::InviteCode(Secret(at.to_string()));
        assert!(answers[..5000].iter().enumerate().all(|(at, answer)| *answer == number(at)));
        assert_eq!(answers[5000], Answer::Done);
        let failed = Answer::Error(Failed::new("unknown", "status"));
        assert_eq!(served.ask(request(&Request::Status)).await, [failed]);
    }

    #[tokio::test]
    async fn what_is_no_request_is_answered_without_quoting_it() {
        let served = Served::start();
        let mut long = vec![b' '; REQUEST_BYTES_MAX];
        long.extend(request(&Request::Status));
        for wrong in [b"canary\n".to_vec(), b"{\"command\":\"canary\"}\n".to_vec(), b"\n".to_vec(), long] {
            let answers = served.ask(wrong).await;
            let [Answer::Error(failed)] = &answers[..] else { panic!("{answers:?}") };
            assert!(failed.reason == "request" && !failed.text.contains("canary"), "{failed:?}");
        }
    }

    #[tokio::test]
    async fn too_many_at_once_are_refused_and_a_stop_waits_for_the_rest() {
        let served = Served::start();
        let waiting: Vec<_> = (0..CONNECTIONS_MAX).map(|_| served.connect()).collect();
        // One task accepts, the others each wait for a request.
        while served.tasks.len() <= CONNECTIONS_MAX {
            tokio::task::yield_now().await;
        }
        let answers = served.ask(request(&Request::CreateInvites { count: 1 })).await;
        let [Answer::Error(failed)] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(failed.reason, "busy");
        served.stop.cancel();
        served.tasks.close();
        let answers = tokio::task::spawn_blocking(move || {
            let mut answers = Vec::new();
            for mut stream in waiting {
                stream.write_all(&request(&Request::CreateInvites { count: 1 })).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answers.push(answer);
            }
            answers
        });
        let answers = answers.await.unwrap();
        assert!(answers.iter().all(|answer| answer.ends_with("\"done\"\n")), "{answers:?}");
        served.tasks.wait().await;
        assert!(!served.directory.path().join("admin.sock").exists());
    }
}
