//! Runs the ClickHouse server that `libchdb.so` carries, inside the calling process.
//!
//! `libchdb` is `clickhouse local` as a library: handed the arguments of that program, it runs their queries and returns. Two of the queries
//! below open the HTTP and the native listener, the third reads standard input until it ends; while it waits, the process is a server. So
//! standard input is made a pipe that this process holds at both ends, and the server is stopped by closing it.
//!
//! The first step blocks signals in the calling thread, and the library's threads inherit that: [`serve`] has to be called before the
//! process has other threads.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, Signal};

/// What the server does, in the words of `clickhouse local`. `FROM INFILE` is read by the client half of the library, so that the built-in
/// `default` user, who needs no password, needs no right to read files either (with `file('-')` it would have to be given that right, and
/// with it every file of this user to anyone on the machine).
const QUERIES: &CStr = c"SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; \
    INSERT INTO FUNCTION null('line String') FROM INFILE '/dev/stdin' COMPRESSION 'none' FORMAT LineAsString";

/// Why the server did not run, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The library is missing or not the one this was written for.
    #[error("cannot load {}", path.display())]
    Load {
        /// The library.
        path: PathBuf,
        /// What the loader says.
        source: libloading::Error,
    },
    /// The server's directory cannot be entered.
    #[error("cannot work in {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// Signals or the pipe could not be set up.
    #[error("cannot prepare the server's signals and standard input")]
    Prepare(#[from] nix::Error),
    /// The thread that waits for the stop signal could not be started.
    #[error("cannot start the thread that waits for the stop signal")]
    Thread(#[from] std::io::Error),
    /// The server says why it ended.
    #[error("{0}")]
    Server(String),
    /// The server ended without a stop signal and without a reason, as it does when a port is taken.
    #[error("ended by itself; the log has the reason")]
    Ended,
}

/// Serves until SIGTERM or SIGINT, then stops the server and returns. A second signal ends the process at once.
///
/// The server works in `directory`, and reads its configuration from `config.xml` in there (under that name alone: the library reads a
/// backslash in a longer one as a slash).
///
/// # Errors
/// When the library cannot be loaded, or the server ends without having been told to.
pub fn serve(library: &Path, directory: &Path) -> Result<(), LaunchError> {
    std::env::set_current_dir(directory).map_err(|source| LaunchError::Directory { path: directory.to_path_buf(), source })?;
    let mut stop_signals = SigSet::empty();
    stop_signals.add(Signal::SIGTERM);
    stop_signals.add(Signal::SIGINT);
    stop_signals.thread_block()?;

    let (read_end, write_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    nix::unistd::dup2_stdin(read_end.as_fd())?;
    let stopping = Arc::new(AtomicBool::new(false));
    std::thread::Builder::new().name("stop-signal".into()).spawn({
        let stopping = Arc::clone(&stopping);
        move || close_on_signal(stop_signals, write_end, &stopping)
    })?;

    let failure = run(library)?;
    match failure {
        Some(reason) => Err(LaunchError::Server(reason)),
        None if stopping.load(Ordering::SeqCst) => Ok(()),
        None => Err(LaunchError::Ended),
    }
}

#[expect(clippy::disallowed_methods, reason = "a second signal asks for the end at once")]
fn close_on_signal(stop_signals: SigSet, write_end: OwnedFd, stopping: &AtomicBool) {
    if stop_signals.wait().is_ok() {
        stopping.store(true, Ordering::SeqCst);
        drop(write_end);
    }
    if let Ok(second) = stop_signals.wait() {
        std::process::exit(128 + second as c_int);
    }
}

/// Runs the library until its queries end, and returns the error that it reports, if any.
fn run(library: &Path) -> Result<Option<String>, LaunchError> {
    let load_error = |source| LaunchError::Load { path: library.to_path_buf(), source };
    // The level in the configuration file is not heeded by this build.
    let arguments = [c"clickhouse", c"--config-file=config.xml", c"--log-level=information", c"--query", QUERIES];
    let mut argv: Vec<*const c_char> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    let argc = c_int::try_from(argv.len()).unwrap_or(c_int::MAX);
    argv.push(std::ptr::null());

    // SAFETY: loading runs the library's initialisers. They expect nothing of the process, and the file is one whose checksum was verified.
    let chdb = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_LOCAL) }.map_err(load_error)?;
    // SAFETY: the three types are those of the declarations in chdb.h 26.7.3.
    let (set_signal_handlers, query, result_error) = unsafe {
        let set_signal_handlers: Symbol<unsafe extern "C" fn(c_int)> =
            chdb.get(b"chdb_set_signal_handlers_enabled\0").map_err(load_error)?;
        let query: Symbol<unsafe extern "C" fn(c_int, *const *const c_char) -> *mut c_void> =
            chdb.get(b"chdb_query_cmdline\0").map_err(load_error)?;
        let result_error: Symbol<unsafe extern "C" fn(*mut c_void) -> *const c_char> =
            chdb.get(b"chdb_result_error\0").map_err(load_error)?;
        (set_signal_handlers, query, result_error)
    };
    // SAFETY: `argv` holds `argc` C strings and a null, and outlives the call, as does the library; the text that `result_error` returns
    // belongs to `result` and is copied at once. Neither is freed: the process ends right after, and the library's own tear-down is what
    // could still go wrong.
    let failure = unsafe {
        set_signal_handlers(0);
        let result = query(argc, argv.as_ptr());
        if result.is_null() {
            return Ok(Some("the library returned no result".into()));
        }
        let error = result_error(result);
        (!error.is_null()).then(|| CStr::from_ptr(error).to_string_lossy().into_owned())
    };
    std::mem::forget(chdb);
    Ok(failure)
}
