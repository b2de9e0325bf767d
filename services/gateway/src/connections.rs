//! Connections of terminals: not more than there is room for, and none that stays without a word.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use metrics::gauge;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep};
use tokio_io_timeout::TimeoutStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::counts::Open;

/// Pause after a connection could not be accepted: mostly for want of file descriptors, which does not pass at once.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is said that there is no room.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// File descriptors that are left for everything but connections.
const OTHER_FILES: u64 = 256;

/// Accepts connections until the stream is dropped, `most` at one moment. One from which nothing is read, or to which nothing can be written,
/// for `silence` is closed, also before it has said what it is.
pub(crate) fn accept(listener: TcpListener, most: u32, silence: Duration) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(1);
    gauge!("faultline_gateway_connections_limit").set(most);
    let room = Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS)));
    tokio::spawn(async move {
        let accepting = async {
            let mut said = None::<Instant>;
            loop {
                if room.available_permits() == 0 && said.is_none_or(|said| said.elapsed() > SAY_AGAIN) {
                    said = Some(Instant::now());
                    tracing::warn!(most, "there are as many connections as there may be (`gateway.max_connections`); more wait");
                }
                let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
                let accepted = listener.accept().await.and_then(|(stream, _)| {
                    stream.set_nodelay(true)?;
                    Ok(stream)
                });
                match accepted {
                    Ok(stream) => {
                        if sender.send(Ok(Connection::new(stream, permit, silence))).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            () = sender.closed() => {}
        }
    });
    ReceiverStream::new(receiver)
}

/// As many of `wanted` connections as the process may have files for, after it has asked for all that it can get.
pub(crate) fn affordable(wanted: u32) -> u32 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    let files = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    let affordable = u32::try_from(files.saturating_sub(OTHER_FILES).max(1)).unwrap_or(u32::MAX);
    if affordable < wanted {
        tracing::warn!(
            wanted,
            affordable,
            "fewer connections than `gateway.max_connections`: the process may open only {files} files (ulimit -n)"
        );
    }
    wanted.min(affordable)
}

/// A connection, with the room that it takes.
pub(crate) struct Connection {
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    _room: OwnedSemaphorePermit,
    _open: Open,
}

impl Connection {
    fn new(stream: TcpStream, room: OwnedSemaphorePermit, silence: Duration) -> Connection {
        let mut stream = Box::pin(TimeoutStream::new(stream));
        stream.as_mut().set_read_timeout_pinned(Some(silence));
        stream.as_mut().set_write_timeout_pinned(Some(silence));
        Connection { stream, _room: room, _open: Open::connection() }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.get_ref().connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::time::timeout;
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn more_than_there_is_room_for_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = accept(listener, 2, Duration::from_secs(60));
        let _clients = [
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        ];
        let first = connections.next().await.unwrap().unwrap();
        let _second = connections.next().await.unwrap().unwrap();
        assert!(timeout(Duration::from_millis(200), connections.next()).await.is_err());
        drop(first);
        connections.next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_says_nothing_is_not_listened_to_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = accept(listener, 2, Duration::from_millis(50));
        let _client = TcpStream::connect(address).await.unwrap();
        let mut connection = connections.next().await.unwrap().unwrap();
        assert_eq!(connection.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
