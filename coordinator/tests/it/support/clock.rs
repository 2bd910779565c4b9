//! A library that makes a process believe another time.

use std::path::Path;

const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

/// Returns where the library is, if it is installed.
pub(crate) fn library() -> Option<&'static Path> {
    let mut libraries = LIBRARIES.into_iter().map(Path::new);
    libraries.find(|path| path.exists())
}
