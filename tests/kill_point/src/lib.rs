//! Ends a process just before one of its file operations: what a crash leaves behind at exactly that place.
//!
//! Loaded before the libraries of a ClickHouse (`LD_PRELOAD`), it stands between the server and the C library: it counts the operations that change a
//! table's files, and before the chosen one kills the process. What it is to do is said in a file of three numbers, which both sides map into memory or
//! write: see [`Control`]. Beside it, in a file whose name ends in `.log`, stands a line for every operation that was counted.

use std::ffi::{CStr, OsStr, c_char, c_int, c_long, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Names the file that says what to do.
const CONTROL: &CStr = c"FAULTLINE_KILL_POINT";
/// What the paths of tables' files have in them.
const TABLES: &[u8] = b"store/";

/// What is to be done: native numbers of 64 bits, in this order.
#[repr(C)]
struct Control {
    /// 1 while operations are counted. Set to 0 before the process is killed, so that the next one lives.
    is_armed: AtomicU64,
    /// The operation before which the process is killed, from 1; 0: none.
    kill_at: AtomicU64,
    /// Operations that were counted.
    counted: AtomicU64,
}

/// The function of the C library that one of ours stands before.
struct Real {
    name: &'static CStr,
    address: AtomicUsize,
}

impl Real {
    const fn new(name: &'static CStr) -> Real {
        Real { name, address: AtomicUsize::new(0) }
    }

    fn address(&self) -> usize {
        match self.address.load(Ordering::Relaxed) {
            0 => {
                // SAFETY: the name is a C string, and looking a symbol up changes nothing.
                let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) } as usize;
                self.address.store(found, Ordering::Relaxed);
                found
            }
            known => known,
        }
    }
}

/// The mapped control file, and where operations are written down. Not a lock: the functions below are called from everywhere.
fn control() -> Option<&'static Control> {
    static MAPPED: AtomicPtr<Control> = AtomicPtr::new(ptr::null_mut());
    let mapped = MAPPED.load(Ordering::Acquire);
    let mapped = if mapped.is_null() { map(&MAPPED) } else { mapped };
    // SAFETY: it is null, or a mapping of that size which lasts as long as the process.
    unsafe { mapped.as_ref() }
}

static LOG: AtomicI32 = AtomicI32::new(-1);

fn map(into: &AtomicPtr<Control>) -> *mut Control {
    // SAFETY: the environment is not changed by a process that has this library.
    let path = unsafe { libc::getenv(CONTROL.as_ptr()) };
    if path.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the path is a C string; the file has been made with this size before the process began.
    let mapped = unsafe {
        let file = libc::open(path, libc::O_RDWR | libc::O_CLOEXEC);
        libc::mmap(ptr::null_mut(), size_of::<Control>(), libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file, 0)
    };
    if mapped == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    // SAFETY: as above.
    let mut log = unsafe { CStr::from_ptr(path) }.to_bytes().to_vec();
    log.extend_from_slice(b".log\0");
    // SAFETY: it ends with a null.
    let log = unsafe { libc::open(log.as_ptr().cast(), libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC, 0o600) };
    LOG.store(log, Ordering::Relaxed);
    into.store(mapped.cast(), Ordering::Release);
    mapped.cast()
}

/// Counts an operation on a path, and ends the process if it is the one.
fn meet(operation: &str, path: &[u8]) {
    let Some(control) = control() else { return };
    if control.is_armed.load(Ordering::Acquire) == 0 || !path.windows(TABLES.len()).any(|part| part == TABLES) {
        return;
    }
    let number = control.counted.fetch_add(1, Ordering::AcqRel) + 1;
    let line = format!("{number} {operation} {}\n", OsStr::from_bytes(path).display());
    // SAFETY: the bytes live until it returns. Nothing is to be done where it fails.
    let _ = unsafe { real_write(LOG.load(Ordering::Relaxed), line.as_ptr().cast(), line.len()) };
    if number == control.kill_at.load(Ordering::Acquire) {
        control.is_armed.store(0, Ordering::Release);
        // SAFETY: it has no conditions.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

/// # Safety
/// `path` is null or a C string.
unsafe fn meet_path(operation: &str, path: *const c_char) {
    if !path.is_null() {
        // SAFETY: as promised.
        meet(operation, unsafe { CStr::from_ptr(path) }.to_bytes());
    }
}

/// # Safety
/// None: it is called as the others are.
unsafe fn meet_file(operation: &str, file: c_int) {
    let is_armed = control().is_some_and(|control| control.is_armed.load(Ordering::Acquire) == 1);
    if !is_armed || file == LOG.load(Ordering::Relaxed) {
        return;
    }
    let link = format!("/proc/self/fd/{file}\0");
    let mut path = [0_u8; 4096];
    // SAFETY: the link ends with a null, and as much is written as there is room.
    let length = unsafe { libc::readlink(link.as_ptr().cast(), path.as_mut_ptr().cast(), path.len()) };
    if let Some(path) = usize::try_from(length).ok().and_then(|length| path.get(..length)) {
        meet(operation, path);
    }
}

/// # Safety
/// `to` is null or a C string where the number is that of `renameat2`, which ClickHouse calls by it.
unsafe fn meet_call(_: &str, number: c_long, to: c_long) {
    if number == libc::SYS_renameat2 {
        // SAFETY: as promised.
        unsafe { meet_path("renameat2", to as *const c_char) };
    }
}

/// The function that stands before one of the same name and type, and what it meets of its arguments.
macro_rules! before {
    ($name:ident($($argument:ident: $type:ty),*) -> $result:ty, $real:ident, $meet:ident($($met:ident),*)) => {
        /// # Safety
        /// As the function of this name in the C library.
        unsafe fn $real($($argument: $type),*) -> $result {
            static REAL: Real = Real::new(match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => c"",
            });
            // SAFETY: the function of this name has this type, and the caller keeps its conditions.
            unsafe { std::mem::transmute::<usize, unsafe extern "C" fn($($type),*) -> $result>(REAL.address())($($argument),*) }
        }

        /// Stands before the function of this name in the C library.
        ///
        /// # Safety
        /// As for that function.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            // SAFETY: the caller keeps the conditions of the real one, and paths are C strings to it.
            unsafe {
                $meet(stringify!($name), $($met),*);
                $real($($argument),*)
            }
        }
    };
}

before!(mkdir(path: *const c_char, mode: libc::mode_t) -> c_int, real_mkdir, meet_path(path));
before!(rmdir(path: *const c_char) -> c_int, real_rmdir, meet_path(path));
before!(unlink(path: *const c_char) -> c_int, real_unlink, meet_path(path));
before!(remove(path: *const c_char) -> c_int, real_remove, meet_path(path));
before!(rename(from: *const c_char, to: *const c_char) -> c_int, real_rename, meet_path(to));
before!(link(from: *const c_char, to: *const c_char) -> c_int, real_link, meet_path(to));
before!(unlinkat(at: c_int, path: *const c_char, flags: c_int) -> c_int, real_unlinkat, meet_path(path));
before!(write(file: c_int, bytes: *const c_void, length: usize) -> isize, real_write, meet_file(file));
before!(pwrite(file: c_int, bytes: *const c_void, length: usize, at: libc::off_t) -> isize, real_pwrite, meet_file(file));
before!(ftruncate(file: c_int, length: libc::off_t) -> c_int, real_ftruncate, meet_file(file));
before!(
    syscall(number: c_long, one: c_long, two: c_long, three: c_long, four: c_long, five: c_long, six: c_long) -> c_long,
    real_syscall,
    meet_call(number, four)
);
