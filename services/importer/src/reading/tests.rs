use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::*;
use crate::log::{Input, Known};

const MAPPING: &str = "[batch]\nterminal_id = { column = 'term' }\n[outcome]\nmerchant_id = { column = 'shop' }\ntype = 'sale'\n\
                       stage = 'host_decision'\nresponse_code = { column = 'code' }\nresponse_spec = 'unionpay-pos'\n\
                       completion_time = { column = 'time', format = '%F %T', zone = 'Asia/Shanghai' }\nbin = { column = 'card' }\n\
                       diagnostic = { column = 'text' }\norder_number = { column = 'order', if_invalid = 'leave_out' }\n\
                       store_id = { column = 'shop', if_invalid = 'leave_out' }\n";
const HEADER: &str = "time,term,shop,code,card,text,order\n";

fn mapping(log: &str) -> Arc<Mapping> {
    Arc::new(Mapping::parse(&format!("[log]\n{log}\n{MAPPING}")).unwrap())
}

fn log(content: &[u8], is_finished: bool) -> Log {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    std::fs::write(&path, content).unwrap();
    Log::open(&Input::File(path), &Known { source: Some("log".into()), is_finished }).unwrap()
}

fn begin(form: &str, content: &[u8], from: Place) -> Result<Reading, LogError> {
    Reading::begin(log(content, true), mapping(form), from, GatewayClock::default())
}

/// A time that Faultline takes, as the log writes it.
fn today() -> String {
    let now = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    now.to_zoned(jiff::tz::TimeZone::get("Asia/Shanghai").unwrap()).strftime("%F %T").to_string()
}

/// What became of each line: `ok`, `-` where it is skipped, or the reason and the field.
fn fates(reading: &mut Reading) -> Vec<String> {
    let mut fates = Vec::new();
    while let Some(fate) = reading.next().unwrap() {
        fates.push(match fate {
            Fate::Skipped => "-".to_owned(),
            Fate::Refused(refusal) => format!("{} {}", refusal.reason, refusal.field).trim().to_owned(),
            Fate::Attempt(attempt) => match reading.prepare(*attempt, &mut Vec::new()) {
                Ok(_) => "ok".to_owned(),
                Err(refusal) => refusal.reason.to_owned(),
            },
        });
    }
    fates
}

#[test]
fn every_line_has_its_fate_and_none_stops_the_rest() {
    let today = today();
    let good = format!("{today},T-1,8984,00,6212345678901234,,");
    let long = "x".repeat(LONGEST + 1);
    let lines = [
        (good.clone(), "ok"),
        (String::new(), "-"),
        ("  \t ".into(), "-"),
        (format!("{today},T-1,8984,00,6212345678901234,\"no, \"\"really\"\"\",A-1"), "ok"),
        (format!("{today},T-1,8984,00"), "malformed"),
        (format!("{today},T-1,8984,00,,\"open,"), "malformed"),
        (long, "too_long"),
        (format!("{today},T/1,8984,00,,,"), "invalid_field batch.terminal_id"),
        (format!("{today},T-1,8984,00,62x,,"), "invalid_field outcome.bin"),
        ("2026-13-01 10:11:12,T-1,8984,00,,,".into(), "invalid_field outcome.completion_time"),
        ("2020-01-01 10:11:12,T-1,8984,00,,,".into(), "too_old outcome.completion_time"),
        ("2999-01-01 10:11:12,T-1,8984,00,,,".into(), "in_future outcome.completion_time"),
        (format!("{today},T-1,8984,00,6212345678901234,,6212345678901234"), "card_number"),
        (format!("{today},T-1,8984,00,6212 3456 7890 1234,see 6212345678901234!,"), "card_number"),
        (good, "ok"),
    ];
    for end in ["\n", "\r\n"] {
        let text = format!("\u{FEFF}{HEADER}{}", lines.iter().map(|(line, _)| format!("{line}{end}")).collect::<String>());
        let expected: Vec<&str> = lines.iter().map(|(_, fate)| *fate).collect();
        assert_eq!(fates(&mut begin("format = 'csv'", text.as_bytes(), Place::default()).unwrap()), expected);
        // A last line without an end is one, if nothing more comes.
        let cut = text.trim_end_matches(end);
        assert_eq!(fates(&mut begin("format = 'csv'", cut.as_bytes(), Place::default()).unwrap()), expected);
    }
}

#[test]
fn lines_that_are_not_in_the_encoding_are_refused_and_the_rest_is_read() {
    let line = |text: &str| format!("{},T-1,8984,00,621234,{text},\n", today());
    let (gbk, _, _) = GB18030.encode("拒绝 \u{20087}");
    let mut bytes = HEADER.as_bytes().to_vec();
    for text in [gbk.as_ref(), b"\xFF\xFF", b"plain"] {
        let (before, after) = line("#").split_once('#').map(|(before, after)| (before.to_owned(), after.to_owned())).unwrap();
        bytes.extend_from_slice(&[before.as_bytes(), text, after.as_bytes()].concat());
    }
    let mut reading = begin("format = 'csv'\nencoding = 'gbk'", &bytes, Place::default()).unwrap();
    let Some(Fate::Attempt(first)) = reading.next().unwrap() else { panic!("it is refused") };
    assert_eq!(first.outcome.diagnostic, "拒绝 \u{20087}");
    assert_eq!(fates(&mut reading), ["encoding", "ok"]);
    let mut reading = begin("format = 'csv'", &bytes, Place::default()).unwrap();
    assert_eq!(fates(&mut reading), ["encoding", "encoding", "ok"]);

    // The second byte of 鈢 is a `|`, and that of 乗 is a backslash.
    let (text, _, _) = GB18030.encode("鈢|乗");
    assert!(text[1] == b'|' && text[4] == b'\\');
    let bytes =
        [HEADER.replace(',', "|").as_bytes(), line("").replacen(",,", "|", 1).replace(',', "|").trim_end().as_bytes(), &text, b"\n"]
            .concat();
    let mut reading = begin("format = 'csv'\nencoding = 'gb18030'\ndelimiter = '|'", &bytes, Place::default()).unwrap();
    let Some(Fate::Attempt(attempt)) = reading.next().unwrap() else { panic!("it is refused") };
    assert_eq!(
        (attempt.outcome.diagnostic.as_str(), attempt.filling.left_out.as_slice()),
        ("鈢", &["outcome.order_number".to_owned()][..])
    );
}

#[test]
fn the_number_of_the_line_is_the_sequence_wherever_reading_begins() {
    let line = |terminal: usize| format!("{},T-{terminal},8984,00,621234,,\n", today());
    let text = format!("# preamble\n{HEADER}\n{}", (0..2000).map(|number| line(number % 7)).collect::<String>());
    let form = "format = 'csv'\nskip_lines = 1";
    let sequences = |reading: &mut Reading| {
        let mut sequences = Vec::new();
        let mut ends = Vec::new();
        while let Some(block) = reading.next_block(false).unwrap() {
            sequences.extend(block.events.iter().map(|prepared| {
                assert_eq!(Event::decode(prepared.event.clone()).unwrap().sequence, prepared.line);
                (prepared.line, prepared.terminal.to_string())
            }));
            ends.push(block.end);
        }
        (sequences, ends)
    };
    let (all, ends) = sequences(&mut begin(form, text.as_bytes(), Place::default()).unwrap());
    assert_eq!((all.len(), all[0].clone(), all[1999].0, ends.len()), (2000, (4, "T-0".into()), 2003, 4));
    let mut compressed = GzEncoder::new(Vec::new(), Compression::fast());
    compressed.write_all(text.as_bytes()).unwrap();
    for content in [text.as_bytes(), &compressed.finish().unwrap()] {
        let (rest, _) = sequences(&mut begin(form, content, ends[0]).unwrap());
        let done = usize::try_from(ends[0].lines).unwrap() - 3;
        assert_eq!(rest, all[done..]);
        assert_eq!(sequences(&mut begin(form, content, *ends.last().unwrap()).unwrap()).0, []);
    }
}

#[test]
fn a_line_that_is_being_written_waits() {
    let text = format!("{HEADER}{},T-1,8984,00,621234,,\n2026-11", today());
    let mut reading =
        Reading::begin(log(text.as_bytes(), false), mapping("format = 'csv'"), Place::default(), GatewayClock::default()).unwrap();
    let block = reading.next_block(false).unwrap().unwrap();
    assert_eq!((block.lines, block.end.lines), (1, 2));
    assert!(reading.next_block(false).unwrap().is_none() && reading.has_unfinished);
}

#[test]
fn a_strict_reading_ends_before_what_is_wrong() {
    let good = format!("{},T-1,8984,00,621234,,\n", today());
    let text = format!("{HEADER}{good}{good}bad\n{good}");
    let mut reading = begin("format = 'csv'", text.as_bytes(), Place::default()).unwrap();
    let block = reading.next_block(true).unwrap().unwrap();
    assert_eq!((block.events.len(), block.refusals.len(), block.end.lines), (2, 1, 3));
}

#[test]
fn objects_are_read_by_paths() {
    let text =
        format!("{{\"time\": \"{}\", \"term\": \"T-1\", \"shop\": 8984, \"code\": null, \"card\": \"621234\"}}\nno object\n", today());
    let mut reading = begin("format = 'ndjson'", text.as_bytes(), Place::default()).unwrap();
    let Some(Fate::Attempt(attempt)) = reading.next().unwrap() else { panic!("it is refused") };
    assert_eq!((attempt.outcome.merchant_id.as_str(), attempt.outcome.response_code.as_str()), ("8984", ""));
    assert_eq!(fates(&mut reading), ["malformed"]);
}

#[test]
fn a_log_without_the_columns_is_named_and_not_shown() {
    for (form, text, said) in [
        ("format = 'csv'", "", "its first line, the header, is not there"),
        ("format = 'csv'", "6212345678901234,T-1\n", "no column of its header is `time` (`outcome.completion_time`)"),
        ("format = 'csv'", "time,time,term,shop,code,card,text,order\n", "two columns of its header are `time`"),
        ("format = 'csv'", "\"time\n", "the header has a quote that is not closed"),
    ] {
        let Err(error) = begin(form, text.as_bytes(), Place::default()) else { panic!("{text} is taken") };
        assert!(error.to_string().contains(said) && !error.to_string().contains("6212"), "{error}");
    }
}

/// Of two logs with one identity, the second would be lost without a word.
#[test]
fn a_log_that_begins_as_others_do_needs_a_name() {
    let columns: String = (0..300).map(|column| format!("column-{column},")).collect();
    let text = format!("{columns}{HEADER}{}", "line\n".repeat(1000));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    std::fs::write(&path, text).unwrap();
    let begin = |source: Option<&str>| {
        let known = Known { source: source.map(str::to_owned), is_finished: false };
        let log = Log::open(&Input::File(path.clone()), &known).unwrap();
        Reading::begin(log, mapping("format = 'csv'"), Place::default(), GatewayClock::default())
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let error = begin(None).unwrap_err();
    assert!(error.contains("how it begins does not tell it from others; name it (--source)"), "{error}");
    assert_eq!(begin(Some("switch-1/2026-11-29")), Ok(()));
}

#[test]
fn the_gateways_clock_decides_what_is_too_old() {
    let text = format!("{HEADER}{},T-1,8984,00,621234,,\n", today());
    for (ahead_days, fate) in [(0, "ok"), (31, "too_old outcome.completion_time"), (-1, "in_future outcome.completion_time")] {
        let clock = GatewayClock { ahead_ms: ahead_days * 24 * 60 * 60 * 1000 };
        let mut reading = Reading::begin(log(text.as_bytes(), true), mapping("format = 'csv'"), Place::default(), clock).unwrap();
        assert_eq!(fates(&mut reading), [fate]);
    }
}
