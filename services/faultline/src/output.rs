//! What a command that goes on says on standard output. It is written by a thread of its own: whoever reads it may be slow, stopped or gone, and the
//! work goes on all the same.

use std::io::Write;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Texts that may wait for a reader. What is said beyond that is not heard.
const WAITING: usize = 1000;

enum Order {
    Say(String),
    /// Tells when everything before is written.
    Tell(SyncSender<()>),
}

static ORDERS: LazyLock<SyncSender<Order>> = LazyLock::new(|| {
    let (orders, receiver) = sync_channel(WAITING);
    std::thread::spawn(move || write(&receiver));
    orders
});

fn write(orders: &Receiver<Order>) {
    while let Ok(order) = orders.recv() {
        match order {
            Order::Say(text) => {
                let mut output = std::io::stdout().lock();
                // Nobody may be reading any more.
                let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
            }
            Order::Tell(done) => {
                let _ = done.try_send(());
            }
        }
    }
}

/// Says a line, and does not wait until somebody hears it.
pub(crate) fn say(text: &str) {
    if let Err(TrySendError::Full(_)) = ORDERS.try_send(Order::Say(format!("{text}\n"))) {
        tracing::debug!("nobody reads what is said");
    }
}

/// Waits until everything that was said is written, but not for long.
pub(crate) fn finish() {
    let (done, told) = sync_channel(1);
    if ORDERS.try_send(Order::Tell(done)).is_ok()
        && let Err(RecvTimeoutError::Timeout) = told.recv_timeout(Duration::from_secs(1))
    {
        tracing::debug!("nobody reads what was said last");
    }
}
