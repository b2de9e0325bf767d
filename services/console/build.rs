//! Sees to it that the page is embedded as it was built last, or not at all where it never was.

use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboards/console/dist");
    // Cargo can only watch what exists, and what is embedded has to.
    fs::create_dir_all(&page)?;
    println!("cargo::rerun-if-changed={}", page.display());
    Ok(())
}
