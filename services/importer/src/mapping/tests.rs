use super::*;

const SMALL: &str = "[log]\nformat = 'csv'\n[batch]\nterminal_id = { column = 'T' }\n[outcome]\nmerchant_id = { column = 'M' }\ntype = 'sale'\n\
                     stage = 'wait'\ncompletion_time = { column = 'C', format = 'unix' }\n";

fn wrong(text: &str) -> String {
    Mapping::parse(text).unwrap_err()
}

#[test]
fn the_mapping_that_comes_with_it_can_be_used() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/unionpay-switch.toml");
    let mapping = Mapping::load(&path).unwrap();
    assert_eq!(mapping.columns.len(), 18);
    // Its own example is a line of such a log.
    let text = std::fs::read_to_string(&path).unwrap();
    let mut table = text.lines().filter_map(|line| line.strip_prefix("#   ")).filter(|line| line.contains('|')).map(|line| line.split('|'));
    let (header, line): (Vec<_>, Vec<_>) = (table.next().unwrap().collect(), table.next().unwrap().collect());
    let cells = mapping.columns.iter().map(|(column, _)| match column {
        Column::Name(name) => line[header.iter().position(|title| title == name).unwrap()],
        Column::Place(_) => panic!("it has a header"),
    });
    let cells = Cells::of(&cells.collect::<Vec<_>>());
    let Ok(Mapped::Outcome(attempt)) = mapping.map(&cells) else { panic!("it is no outcome") };
    let told: BTreeMap<String, String> = mapping.told(&attempt).into_iter().collect();
    for (field, value) in [
        ("batch.terminal_id", "10000001"),
        ("outcome.completion_time", "2026-11-29T02:11:12Z"),
        ("outcome.type", "sale"),
        ("outcome.entry_mode", "chip"),
        ("outcome.amount_minor", "12345"),
        ("outcome.currency_code", "\"CNY\""),
        ("outcome.bin", "\"62123456\""),
        ("outcome.stage", "host_decision"),
        ("outcome.response_code", "\"00\""),
        ("outcome.latencies.wait_ms", "312"),
        ("profile.carrier", "\"46000\""),
    ] {
        assert_eq!(told.get(field).map(String::as_str), Some(value), "{field}");
    }
    assert_eq!(attempt.profile.sdk, format!("faultline import {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(mapping.card_number(&cells).as_deref(), Some("6212345678901234"));
}

#[test]
fn a_mapping_that_makes_no_sense_is_named_with_key_or_line() {
    assert!(Mapping::parse(SMALL).is_ok());
    for (text, said) in [
        (SMALL.replace("merchant_id", "merchant"), "unknown field `merchant`"),
        (SMALL.replace("type = 'sale'", "type = 'sael'"), "line 7"),
        (SMALL.replace("type = 'sale'", "type = 'sael'"), "`sael` is not one of unspecified, sale"),
        (SMALL.replace("type = 'sale'\n", ""), "`outcome.type` is missing"),
        (SMALL.replace("'csv'", "'xml'"), "unknown variant `xml`"),
        (SMALL.replace("'csv'", "'csv'\nencoding = 'utf-16'"), "unknown variant `utf-16`"),
        (SMALL.replace("'csv'", "'csv'\ndelimiter = '·'"), "`log.delimiter`: `·` is no ASCII sign"),
        (SMALL.replace("'csv'", "'csv'\ndelimiter = ';;'"), "line 3"),
        (SMALL.replace("'csv'", "'csv'\nquote = 'ab'"), "`log.quote`: `ab` is not one"),
        (SMALL.replace("'csv'", "'csv'\nheader = false"), "column `C` has a name, and without a header columns have places"),
        (SMALL.replace("'csv'", "'ndjson'\nheader = false"), "`log.header` means nothing"),
        (SMALL.replace("'csv'", "'ndjson'").replace("'T'", "3"), "column 3 is a place, and objects have names"),
        (format!("{SMALL}amount_minor = {{ column = 'A' }}"), "`outcome.currency_code` is missing"),
        (format!("{SMALL}response_code = {{ column = 'R' }}"), "`outcome.response_spec` is missing"),
        (format!("{SMALL}bin = {{ column = 'T' }}"), "`batch.terminal_id` has the column of `outcome.bin`"),
        (
            format!("{SMALL}bin = {{ column = 'P' }}\norder_number = {{ column = 'P' }}"),
            "`outcome.order_number` has the column of `outcome.bin`",
        ),
        (format!("{SMALL}[[skip]]\ncolumn = 'X'"), "either `values` (these) or `except` (all others) is needed"),
        (format!("{SMALL}[[skip]]\ncolumn = 'X'\nvalue = ['a']"), "unknown field `value`"),
        (format!("{SMALL}[card]\npan = 'X'"), "unknown field `card`"),
        ("[log".into(), "line 1"),
    ] {
        let message = wrong(&text);
        assert!(message.contains(said), "{said}:\n{message}");
    }
    let missing = Mapping::load(Path::new("/nowhere.toml")).unwrap_err();
    assert_eq!(missing.to_string(), "cannot read the mapping /nowhere.toml");
}

#[test]
fn lines_are_skipped_by_what_they_have_or_do_not_have() {
    let mapping = |skip: &str| Mapping::parse(&format!("{SMALL}{skip}")).unwrap();
    let is_skipped = |mapping: &Mapping, kind: &str| {
        let cell = |(column, _): &(Column, String)| match column {
            Column::Name(name) if name == "K" => kind.to_owned(),
            _ => "1790000000".to_owned(),
        };
        let cells: Vec<String> = mapping.columns.iter().map(cell).collect();
        matches!(mapping.map(&Cells::of(&cells.iter().map(String::as_str).collect::<Vec<_>>())), Ok(Mapped::Skipped))
    };
    let these = mapping("[[skip]]\ncolumn = 'K'\nvalues = ['08*', '']");
    let others = mapping("[[skip]]\ncolumn = 'K'\nexcept = ['0200']");
    for (kind, by_these, by_others) in [("0800", true, true), ("", true, true), ("0200", false, false), ("0400", false, true)] {
        assert_eq!((is_skipped(&these, kind), is_skipped(&others, kind)), (by_these, by_others), "{kind}");
    }
}

#[test]
fn a_wrong_value_refuses_the_line_unless_it_may_be_left_out() {
    let text = format!(
        "{SMALL}trace_number = {{ column = 'N' }}\nbatch_number = {{ column = 'B', if_invalid = 'leave_out' }}\n[profile]\nmodel = {{ column = 'L' }}"
    );
    let mapping = Mapping::parse(&text).unwrap();
    let map = |values: &[(&str, &str)]| {
        let cell = |(column, _): &(Column, String)| {
            let given = values.iter().find(|(name, _)| *column == Column::Name((*name).into()));
            given.map_or("1790000000", |(_, value)| *value)
        };
        mapping.map(&Cells::of(&mapping.columns.iter().map(cell).collect::<Vec<_>>()))
    };
    let Ok(Mapped::Outcome(attempt)) = map(&[("N", "000001"), ("B", "x"), ("L", "型号")]) else { panic!("it is refused") };
    assert_eq!(attempt.filling.left_out, ["outcome.batch_number", "profile.model"]);
    assert_eq!((attempt.outcome.trace_number.as_str(), attempt.outcome.batch_number.as_str()), ("000001", ""));
    for (name, value, field) in [
        ("N", "1790000000", "outcome.trace_number"),
        ("T", "", "batch.terminal_id"),
        ("M", "", "outcome.merchant_id"),
        ("C", "", "outcome.completion_time"),
    ] {
        let wrong = map(&[(name, value), ("N", "1")]).unwrap_err();
        assert_eq!(wrong.field, field);
        assert!(!wrong.description.contains("1790000000"), "{wrong:?}");
    }
}
