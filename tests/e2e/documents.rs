//! The documents name files that exist and commands that there are.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Those at the top and in docs/: their names, from the top, and what they say.
fn documents() -> Vec<(String, String)> {
    let in_directory =
        |directory: &str| fs::read_dir(root().join(directory)).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let markdown = [in_directory(""), in_directory("docs")]
        .concat()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    markdown.map(|path| (name(&path), fs::read_to_string(path).unwrap())).collect()
}

/// What stands in backquotes, which is named from the top, and where links point, which is named from the document.
fn references(document: &str, text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2).map(str::to_owned);
    let linked =
        text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.split('#').next().unwrap_or_default());
    let is_below = document.contains('/');
    let from_top = linked.map(|target| match target.strip_prefix("../") {
        Some(target) if is_below => target.to_owned(),
        _ if is_below => format!("docs/{target}"),
        _ => target.to_owned(),
    });
    quoted.chain(from_top).collect()
}

#[test]
fn every_path_that_a_document_names_exists() {
    let top_level: Vec<String> =
        fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    let mut checked = 0;
    for (document, text) in documents() {
        for reference in references(&document, &text) {
            let first = reference.split('/').next().unwrap_or_default();
            let is_path = !reference.contains(char::is_whitespace) && top_level.iter().any(|name| name == first) && first != "target";
            if is_path {
                assert!(root().join(&reference).exists(), "{document} names {reference}, which does not exist");
                checked += 1;
            }
        }
    }
    assert!(checked > 30, "only {checked} paths were found, so the search is broken");
}

#[test]
fn every_make_target_that_a_document_names_exists() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut checked = 0;
    for (document, text) in documents() {
        for command in references(&document, &text).iter().filter_map(|reference| reference.strip_prefix("make ")) {
            let target = command.split_whitespace().next().unwrap_or_default();
            assert!(makefile.lines().any(|line| line.starts_with(&format!("{target}:"))), "{document} names `make {target}`");
            checked += 1;
        }
    }
    assert!(checked > 5, "only {checked} targets were found, so the search is broken");
}
