//! Bundles that are in order, and what is not.

use faultline_fuzz::target;
use faultline_verdict::Rules;

use super::*;

/// A key that is the same every time.
fn key() -> SigningKey {
    SigningKey::from_pem(
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n",
    )
    .unwrap()
}

const OURS: &str = "version = 'ours/1'\ninherits = 'unionpay-pos'\nacquirer = '48020000'\n\n\
                    [[response_code]]\ncode = '40'\nreason = 'issuer_refused'\nsource = 'our acquirer'\n";

fn bundle(own: &[(&str, &str)], issue_s: i64) -> Bundle {
    Bundle::pack(own, issue_s, &key()).unwrap()
}

/// Contents that nobody would pack, signed all the same.
fn made(change: impl FnOnce(&mut RuleBundleContents)) -> Result<Bundle, BundleError> {
    let mut contents = contents(&RuleFiles::default().encode_to_vec(), 100).unwrap();
    change(&mut contents);
    Bundle::sign(&contents, &key())
}

#[track_caller]
fn refused<T>(what: Result<T, BundleError>, why: &str) {
    let error = what.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains(why), "`{error}` does not say `{why}`");
}

#[test]
fn a_bundle_has_the_rules_that_were_packed() {
    let packed = bundle(&[("ours.toml", OURS)], 1_790_000_000);
    let bytes = packed.message().encode_to_vec();
    assert!(bytes.len() < 64 * 1024, "{}", bytes.len());
    let read = Bundle::decode(&bytes, &[key().public()]).unwrap();
    assert_eq!((&read, read.issue_time().to_string().as_str()), (&packed, "2026-09-21T14:13:20Z"));
    // As of a classifier that has the same file.
    assert_eq!(read.rules().unwrap().version(), Rules::with(&[("ours.toml", OURS)]).unwrap().version());
    assert_eq!(bundle(&[], 1).rules().unwrap().version(), Rules::built_in().unwrap().version());
}

#[test]
fn a_bundle_needs_nothing_that_came_with_the_program() {
    let least = include_str!("../../verdict/fuzz/rules/least").replacen("specs", "home = true\nspecs", 1);
    let file = |name: &str, text: &str| RuleFile { name: name.into(), text: text.into() };
    let files = RuleFiles { base: vec![file("least", &least)], own: vec![] };
    let bundle = Bundle::sign(&contents(&files.encode_to_vec(), 1).unwrap(), &key()).unwrap();
    assert_eq!(bundle.rules().unwrap().sets().count(), 1);
}

#[test]
fn every_bit_of_what_is_signed_counts() {
    let packed = bundle(&[("ours.toml", OURS)], 1).message().clone();
    let keys = [key().public()];
    for bit in (0..packed.contents.len() * 8).step_by(997) {
        let mut contents = packed.contents.to_vec();
        contents[bit / 8] ^= 1 << (bit % 8);
        refused(Bundle::open(RuleBundle { contents: contents.into(), ..packed.clone() }, &keys), "its signature is wrong");
    }
    for length in [0, 1, packed.contents.len() - 1] {
        let contents = packed.contents.slice(..length);
        refused(Bundle::open(RuleBundle { contents, ..packed.clone() }, &keys), "its signature is wrong");
    }
    for bit in 0..packed.signature.len() * 8 {
        let mut signature = packed.signature.to_vec();
        signature[bit / 8] ^= 1 << (bit % 8);
        refused(Bundle::open(RuleBundle { signature: signature.into(), ..packed.clone() }, &keys), "its signature is wrong");
    }
    refused(Bundle::open(RuleBundle { signature: Bytes::new(), ..packed.clone() }, &keys), "its signature is wrong");
    // The same bytes, signed for something else.
    let elsewhere = key().sign(&packed.contents).into();
    refused(Bundle::open(RuleBundle { signature: elsewhere, ..packed }, &keys), "its signature is wrong");
}

#[test]
fn a_key_that_is_not_known_is_named() {
    let packed = bundle(&[], 1).message().clone();
    let other = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap().public();
    for keys in [&[][..], &[other]] {
        refused(Bundle::open(packed.clone(), keys), &format!("it is signed with key {}, which is not known here", key().public().id()));
    }
    // Another key's name helps nobody.
    refused(Bundle::open(RuleBundle { key_id: other.id(), ..packed.clone() }, &[other, key().public()]), "its signature is wrong");
    let told = RuleBundle { key_id: "not a key\n".into(), ..packed };
    refused(Bundle::open(told, &[other]), "it does not name its key");
}

#[test]
fn what_was_signed_and_is_no_rules_is_refused() {
    let files = |files: &RuleFiles| contents(&files.encode_to_vec(), 1).unwrap().files;
    let file = |text: &str| RuleFile { name: "x.toml".into(), text: text.into() };
    refused(made(|contents| contents.issue_time = None), "it does not say when it was issued");
    refused(made(|contents| contents.issue_time = Some(Timestamp { seconds: -1, nanos: 0 })), "when it was issued");
    refused(made(|contents| contents.issue_time = Some(Timestamp { seconds: 1, nanos: 1 })), "when it was issued");
    refused(made(|contents| contents.files = vec![1, 2, 3].into()).unwrap().rules(), "what is compressed in it cannot be read");
    refused(made(|contents| contents.files = contents.files.slice(..3)).unwrap().rules(), "what is compressed in it cannot be read");
    refused(made(|_| {}).unwrap().rules(), "it has 0 and 0 files");
    let many = RuleFiles { base: vec![file("")], own: vec![file(""); 257] };
    refused(made(|contents| contents.files = files(&many)).unwrap().rules(), "it has 1 and 257 files");
    let nameless = RuleFiles { base: vec![RuleFile::default()], own: vec![] };
    refused(made(|contents| contents.files = files(&nameless)).unwrap().rules(), "a name of a file in it has 0 bytes");
    let wrong = RuleFiles { base: vec![file("version = 1")], own: vec![] };
    refused(made(|contents| contents.files = files(&wrong)).unwrap().rules(), "its rules cannot be used: x.toml:1: ");
    refused(Bundle::pack(&[("x.toml", "version = 1")], 1, &key()), "its rules cannot be used: x.toml:1: ");
}

#[test]
fn what_is_too_large_is_not_unpacked() {
    let keys = [key().public()];
    refused(Bundle::decode(&vec![0; MAX_BYTES + 1], &keys), "the bundle has 135169 bytes, at most 135168 are taken");
    let long = RuleBundle { contents: vec![0; MAX_CONTENTS_BYTES + 1].into(), ..bundle(&[], 1).message().clone() };
    refused(Bundle::open(long, &keys), "what is signed has 131073 bytes");
    // A thousand times as much as when it is compressed.
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; 8 * MAX_FILES_BYTES]).unwrap();
    let bomb = Bytes::from(encoder.finish().unwrap());
    assert!(bomb.len() < MAX_CONTENTS_BYTES);
    refused(
        made(|contents| contents.files = bomb).unwrap().rules(),
        "what is compressed in it has 1048577 bytes, at most 1048576 are taken",
    );
    let long = format!("{OURS}# {}\n", "x".repeat(MAX_FILES_BYTES));
    refused(Bundle::pack(&[("ours.toml", long.as_str())], 1, &key()), "what is to be packed has");
}

#[test]
fn only_what_was_issued_later_succeeds() {
    let (first, second) = (bundle(&[], 100), bundle(&[], 101));
    assert!(second.succeeds(&first).unwrap() && !first.succeeds(&first).unwrap());
    refused(first.succeeds(&second), "it was issued 1970-01-01T00:01:40Z, and what is in force 1970-01-01T00:01:41Z: it has to be newer");
    refused(bundle(&[("ours.toml", OURS)], 100).succeeds(&first), "it has to be newer");
}

#[test]
fn keys_are_read_as_they_are_written_and_not_shown() {
    let pem = SigningKey::generate().unwrap();
    let key = SigningKey::from_pem(&pem).unwrap();
    let public = key.public();
    assert_eq!(public.to_string().parse::<PublicKey>().unwrap(), public);
    assert_eq!(public.to_string().to_uppercase().parse::<PublicKey>().unwrap(), public);
    assert_ne!(SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap().public(), public);
    assert_eq!(format!("{key:?}"), format!("SigningKey({})", public.id()));
    for wrong in ["", "4f1c", &"g".repeat(64), &"0".repeat(66)] {
        assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
    }
    for wrong in ["", "hunter2", &pem.replace("PRIVATE", "PUBLIC"), &pem.replace('M', "A")] {
        let error = SigningKey::from_pem(wrong).unwrap_err().to_string();
        assert!(error.starts_with("a private key is one of Ed25519") && !error.contains("hunter2"), "{error}");
    }
}

/// Known from elsewhere: RFC 8032, section 7.1, test 1 has this key, and `printf` of its bytes through `sha256sum` begins with this name.
#[test]
fn keys_and_their_names_are_those_of_other_tools() {
    let public = key().public();
    assert_eq!(public.to_string(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    assert_eq!(public.id(), "21fe31dfa154a261");
}

mod fuzz {
    use super::*;

    /// Whatever comes, before and behind the signature.
    #[test]
    fn of_a_bundle_nothing_is_believed_that_was_not_signed() {
        let (key, keys) = (key(), [key().public()]);
        let fates = target!(Message, "bundle").run(|bytes| {
            let came = Bundle::decode(bytes, &keys);
            if let Ok(bundle) = &came {
                assert_eq!(key.sign(&signed(&bundle.message.contents)), bundle.message.signature);
            }
            let Ok(message) = RuleBundle::decode(bytes) else {
                assert!(came.is_err());
                return "no message";
            };
            let signature = key.sign(&signed(&message.contents)).into();
            let Ok(bundle) = Bundle::open(RuleBundle { key_id: keys[0].id(), signature, ..message }, &keys) else {
                assert!(came.is_err());
                return "no contents";
            };
            match (came.is_ok(), bundle.rules().is_ok()) {
                (true, true) => "taken",
                (true, false) => "signed, and no rules",
                (false, true) => "rules, and not signed",
                (false, false) => "neither signed nor rules",
            }
        });
        fates.include(["no message", "no contents", "taken", "signed, and no rules", "rules, and not signed", "neither signed nor rules"]);
    }

    #[test]
    fn files_of_a_bundle_are_rules_or_refused_by_a_reason() {
        let key = key();
        let fates = target!(Message, "files").run(|bytes| {
            let bundle = Bundle::sign(&contents(bytes, 1).unwrap(), &key).unwrap();
            match bundle.rules() {
                Ok(rules) => {
                    assert!(rules.sets().count() > 0);
                    "rules"
                }
                Err(BundleError::Malformed(_)) => "no files",
                Err(BundleError::Rules(error)) => {
                    assert!(!error.reason.is_empty());
                    "no rules"
                }
                Err(other) => panic!("{other}"),
            }
        });
        fates.include(["rules", "no files", "no rules"]);
    }
}
