//! A network between two parts: a TCP proxy that can be cut, fall silent, be slow, or hold back what it was given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::sandbox::port;

/// Bytes that are carried at once.
const PIECE: usize = 16 * 1024;
/// How long a slow network takes for them: some 80 KiB/s one way.
const SLOW: Duration = Duration::from_millis(200);

/// What becomes of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Up,
    /// Connections are closed, and new ones at once.
    Cut,
    /// Half open: nothing that is sent arrives, and nobody is told. Connections that were used meanwhile are closed when it is over.
    Silent,
    Slow,
    /// Nothing arrives until it is over; then all of it does.
    Held,
}

/// A network that leads to one port. It ends with its owner.
pub(crate) struct Link {
    /// Where it begins.
    pub(crate) port: u16,
    network: watch::Sender<Network>,
    seen: Arc<Seen>,
}

/// What a network did to connections.
#[derive(Default)]
struct Seen {
    /// The largest piece of a request that is held.
    held: AtomicU64,
    /// Connections that were closed or lost what they carried.
    broken: AtomicU64,
}

impl Link {
    /// Takes a port for its beginning.
    pub(crate) fn to(destination: u16) -> Link {
        let port = port();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let (network, state) = watch::channel(Network::Up);
        let seen = Arc::<Seen>::default();
        let of_connections = Arc::clone(&seen);
        tokio::spawn(async move {
            let mut over = state.clone();
            loop {
                let client = tokio::select! {
                    client = listener.accept() => client.unwrap().0,
                    _ = over.wait_for(|_| false) => return,
                };
                tokio::spawn(connect(client, destination, state.clone(), Arc::clone(&of_connections)));
            }
        });
        Link { port, network, seen }
    }

    pub(crate) fn set(&self, network: Network) {
        self.seen.held.store(0, Ordering::Relaxed);
        self.network.send_replace(network);
    }

    /// The same for a time.
    pub(crate) async fn set_for(&self, time: Duration, network: Network) {
        self.set(network);
        sleep(time).await;
        self.set(Network::Up);
    }

    /// Bytes of the largest piece of a request that is held since it was set.
    pub(crate) fn held(&self) -> u64 {
        self.seen.held.load(Ordering::Relaxed)
    }

    /// Connections that it broke so far.
    pub(crate) fn broken(&self) -> u64 {
        self.seen.broken.load(Ordering::Relaxed)
    }
}

/// Carries both ways until one of them ends.
async fn connect(client: TcpStream, destination: u16, state: watch::Receiver<Network>, seen: Arc<Seen>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", destination)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let is_broken = tokio::select! {
        is_broken = carry((from_client, to_server), state.clone(), Some(&seen.held)) => is_broken,
        is_broken = carry((from_server, to_client), state, None) => is_broken,
    };
    seen.broken.fetch_add(u64::from(is_broken), Ordering::Relaxed);
}

/// Carries one way. Returns whether it was the network that ended it.
async fn carry((mut from, mut to): (OwnedReadHalf, OwnedWriteHalf), mut state: watch::Receiver<Network>, held: Option<&AtomicU64>) -> bool {
    let mut piece = vec![0; PIECE];
    loop {
        let read = tokio::select! {
            read = from.read(&mut piece) => read,
            cut = state.wait_for(|network| *network == Network::Cut) => return cut.is_ok(),
        };
        let Some(length) = read.ok().filter(|length| *length > 0) else { return false };
        loop {
            let network = *state.borrow_and_update();
            match network {
                Network::Up => break,
                Network::Cut => return true,
                Network::Silent => {
                    let _ = state.wait_for(|network| *network != Network::Silent).await;
                    return true;
                }
                Network::Slow => {
                    sleep(SLOW).await;
                    break;
                }
                Network::Held => {
                    if let Some(held) = held {
                        held.fetch_max(u64::try_from(length).unwrap(), Ordering::Relaxed);
                    }
                    if state.changed().await.is_err() {
                        return false;
                    }
                }
            }
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return false;
        }
    }
}
