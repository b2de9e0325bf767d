//! Says where the page is that is embedded: where `make` built it, or else a note that it was not built.

use std::path::{Path, PathBuf};
use std::{env, fs};

const NOT_BUILT: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Faultline</title>
<p>This program was built without its page: <code>cargo build</code> needs no Node.js, and <code>make build</code> builds the page first.
<p>The API is there: <a href=\"/api/v1/openapi.json\">/api/v1/openapi.json</a>
</html>
";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboards/console/dist");
    // Cargo can only watch what exists; it would run this every time otherwise.
    fs::create_dir_all(&built)?;
    println!("cargo::rerun-if-changed={}", built.display());
    let page = if built.join("index.html").exists() {
        fs::canonicalize(built)?
    } else {
        note(&PathBuf::from(env::var_os("OUT_DIR").ok_or("Cargo did not say where to put the page")?))?
    };
    println!("cargo::rustc-env=FAULTLINE_CONSOLE_PAGE={}", page.display());
    Ok(())
}

fn note(out: &Path) -> std::io::Result<PathBuf> {
    let directory = out.join("page");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("index.html"), NOT_BUILT)?;
    Ok(directory)
}
