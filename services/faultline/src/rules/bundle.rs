//! `faultline rules keygen`, `pack`, `verify`: rules for terminals, signed.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use faultline_bundle::{Bundle, MAX_BYTES, PublicKey, SigningKey};
use faultline_rules::rule_texts;
use prost::Message;

use crate::answer;

/// Where a new key is put.
#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// The file for the private key, which must not be there yet. Only its owner may read it: keep it where rules are signed, and never on a gateway
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// What is packed.
#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// The private key that signs
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The file for the bundle (`gateway.terminals.rules_bundle`). A running gateway reads it within seconds
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Files (TOML), or directories of them, beside the rules that come with the program: those that the classifier has in `classifier.rules`
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// What is looked at.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The public key, as `keygen` printed it
    #[arg(long, value_name = "KEY")]
    key: PublicKey,
    /// The bundle
    #[arg(value_name = "FILE")]
    bundle: PathBuf,
}

/// Writes a new private key, and prints the public one.
pub(super) fn keygen(options: &Keygen) -> anyhow::Result<()> {
    let path = &options.out;
    let pem = SigningKey::generate()?;
    let public = SigningKey::from_pem(&pem)?.public();
    let file = File::options().create_new(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(pem.as_bytes())).with_context(|| format!("cannot write {} (--out)", path.display()))?;
    answer(&format!("{public}\n"))
}

/// Packs rules that `rules check` has no errors in.
pub(super) fn pack(options: &Pack) -> anyhow::Result<()> {
    let pem = std::fs::read_to_string(&options.key).with_context(|| format!("cannot read {} (--key)", options.key.display()))?;
    let key = SigningKey::from_pem(&pem).with_context(|| options.key.display().to_string())?;
    let mut texts = Vec::new();
    for path in &options.paths {
        texts.extend(rule_texts(path)?);
    }
    if !texts.is_empty() {
        super::check_texts(&texts)?;
    }
    // Terminals need not know where the files are here.
    let own: Vec<(String, String)> = texts.into_iter().map(|(path, text)| (file_name(&path), text)).collect();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    let bundle = Bundle::pack(&own, i64::try_from(now_s)?, &key)?;
    let bytes = bundle.message().encode_to_vec();
    std::fs::write(&options.out, bytes).with_context(|| format!("cannot write {} (--out)", options.out.display()))?;
    answer(&described(&bundle)?)
}

/// Shows what is in a bundle, if it is signed with a key.
pub(super) fn verify(options: &Verify) -> anyhow::Result<()> {
    let path = &options.bundle;
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bundle = Bundle::decode(&bytes, &[options.key]).with_context(|| path.display().to_string())?;
    answer(&format!("{}{}", described(&bundle)?, super::list(&bundle.rules()?)))
}

fn described(bundle: &Bundle) -> anyhow::Result<String> {
    let message = bundle.message();
    let (version, issued, bytes) = (bundle.rules()?.version().to_owned(), bundle.issue_time(), message.encoded_len());
    Ok(format!("{version}, issued {issued}, signed with key {}: {bytes} of at most {MAX_BYTES} bytes\n", message.key_id))
}

fn file_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.into(), |name| name.to_string_lossy().into_owned())
}
