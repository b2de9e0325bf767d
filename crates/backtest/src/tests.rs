//! A small directory, made here, and what is said of it.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::{Directory, ReadError, read_labels, read_oracle, run, score, slice_text, write_incidents};
use faultline_detect::Settings;
use flate2::Compression;
use flate2::write::GzEncoder;

/// A Monday, 12:00 UTC.
const START: u32 = 1_793_620_800;
const ISSUERS: [&str; 4] = ["a", "b", "c", "d"];
const REGIONS: [&str; 5] = ["r1", "r2", "r3", "r4", "r5"];

fn gzip(path: &Path, text: &str) {
    let mut file = GzEncoder::new(fs::File::create(path).unwrap(), Compression::fast());
    file.write_all(text.as_bytes()).unwrap();
    file.finish().unwrap();
}

/// Forty minutes of twenty leaves, each with three approvals in ten seconds. From the thirtieth minute on issuer `b` is down for five, and meanwhile
/// others are told that come too late.
fn write_directory(directory: &Path) {
    let (mut leaves, mut counts) = ("leaf,issuer,region\n".to_owned(), "bucket,leaf,tag,n,arrival\n".to_owned());
    let places = || ISSUERS.iter().flat_map(|issuer| REGIONS.iter().map(move |region| (*issuer, *region)));
    for (leaf, (issuer, region)) in places().enumerate() {
        writeln!(leaves, "{leaf},{issuer},{region}").unwrap();
    }
    for tick in 0..240 {
        let bucket = START + tick * 10;
        for (leaf, (issuer, _)) in places().enumerate() {
            let tag = if issuer == "b" && (180..210).contains(&tick) { "issuer_down" } else { "approved" };
            writeln!(counts, "{bucket},{leaf},{tag},3,").unwrap();
            // Somebody's failures of long ago, all at once.
            if tick == 200 && leaf < 5 {
                writeln!(counts, "{},{leaf},issuer_down,40,{bucket}", bucket - 900).unwrap();
            }
        }
    }
    let failing = "funds,cardholder,issuer_refusal,issuer_down,issuer_timeout,host_unreachable,device_read,local_network,security";
    let mut history = format!("slice,hour_of_week,attempts,{failing}\n");
    let slices = ISSUERS
        .iter()
        .map(|issuer| (format!("issuer={issuer}"), 5400))
        .chain(REGIONS.iter().map(|region| (format!("region={region}"), 4320)));
    for (slice, attempts) in slices.chain([("fleet".to_owned(), 21_600)]) {
        for hour in 0..168 {
            writeln!(history, "{slice},{hour},{attempts},0,0,0,{},0,0,0,0,0", f64::from(attempts) * 0.001).unwrap();
        }
    }
    fs::write(directory.join("leaves.csv"), leaves).unwrap();
    gzip(&directory.join("counts.csv.gz"), &counts);
    gzip(&directory.join("history.csv.gz"), &history);
    let (start, end) = (START + 1800, START + 2100);
    let labels = format!("fault,start,end,kind,slice,cause,expect\n1,{start},{end},issuer_outage,issuer=b,issuer_down,incident\n");
    fs::write(directory.join("labels.csv"), labels).unwrap();
    fs::write(directory.join("oracle.csv"), "fault,detectable,oracle_delay_s\n1,1,10\n").unwrap();
}

#[test]
fn a_fault_is_found_and_scored_and_what_comes_too_late_is_none() {
    let directory = tempfile::tempdir().unwrap();
    write_directory(directory.path());
    let read = Directory::open(directory.path()).unwrap();
    let mut last = 0;
    let ran = run(&read, Settings::default(), Duration::default, |progress| last = progress.bytes).unwrap();
    assert_eq!((ran.ticks, ran.events, ran.late, ran.slices), (240, 240 * 60, 200, 10));
    assert_eq!(last, read.size().unwrap());
    let found: Vec<String> = ran.found.iter().map(|found| slice_text(&found.incident.slice)).collect();
    assert_eq!(found, ["issuer=b"], "{:?}", ran.found);
    assert!((START + 1810..=START + 1820).contains(&ran.found[0].incident.opened), "{:?}", ran.found);

    let (labels, oracle) = (read_labels(&directory.path().join("labels.csv")), read_oracle(&directory.path().join("oracle.csv")));
    let score = score(&labels.unwrap(), &ran.found, Some(&oracle.unwrap()));
    assert!(score.outcomes[0].delay_ratio().unwrap() <= 2.0);
    let mut written = Vec::new();
    write_incidents(&ran.found, &mut written).unwrap();
    let again = run(&read, Settings::default(), Duration::default, |_| ()).unwrap();
    let mut second = Vec::new();
    write_incidents(&again.found, &mut second).unwrap();
    assert_eq!(written, second);
    let text = String::from_utf8(written).unwrap();
    assert!(
        text.starts_with("opened_at,closed_at,slice,cause,first_slice\n") && text.contains(",issuer=b,issuer_down,issuer=b\n"),
        "{text}"
    );
}

#[test]
fn what_was_announced_is_no_incident() {
    let directory = tempfile::tempdir().unwrap();
    write_directory(directory.path());
    let calendar = format!("kind,start,end,slice\nmaintenance,{},{},issuer=b\n", START + 1800, START + 2100);
    fs::write(directory.path().join("calendar.csv"), calendar).unwrap();
    let ran = run(&Directory::open(directory.path()).unwrap(), Settings::default(), Duration::default, |_| ()).unwrap();
    assert_eq!(ran.found, []);
}

#[test]
fn what_is_wrong_is_said_with_file_line_and_value() {
    let directory = tempfile::tempdir().unwrap();
    write_directory(directory.path());
    let path = directory.path().join("counts.csv.gz");
    let said = |counts: &str| {
        gzip(&path, counts);
        run(&Directory::open(directory.path()).unwrap(), Settings::default(), Duration::default, |_| ()).unwrap_err().to_string()
    };
    let weather = said("bucket,leaf,tag,n,arrival\n1793620800,0,approved,1,\n1793620800,0,weather,1,\n");
    assert!(weather.contains("counts.csv.gz, line 3: `tag` is \"weather\", and is to be a tag: approved, funds"), "{weather}");
    assert!(
        said("bucket,leaf,tag,n,arrival\n1793620800,20,approved,1,\n")
            .contains("line 2: `leaf` is \"20\", and is to be a leaf of leaves.csv")
    );
    assert!(said("bucket,leaf,tag,n,arrival\n1793620800,1,approved,-1,\n").contains("`n` is \"-1\", and is to be a whole number"));
    assert!(said("bucket,leaf,tag,arrival\n").contains("has no column `n`"));
    assert!(said("bucket,leaf,tag,n,arrival\n1793620800,1\n").contains("is no table"));
    fs::remove_file(directory.path().join("leaves.csv")).unwrap();
    let missing = Directory::open(directory.path()).unwrap_err();
    assert!(matches!(missing, ReadError::Read { .. }) && missing.to_string().contains("leaves.csv"), "{missing}");
}
