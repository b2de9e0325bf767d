//! Where a field's value comes from: the same for every field, whatever it holds.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::kind::Kind;
use crate::cells::Cells;

/// A column as the mapping names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Column {
    /// By its name in the header, or the path to it in an object.
    Name(String),
    /// By its place, counting from 1.
    Place(usize),
}

impl fmt::Display for Column {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Column::Name(name) => write!(formatter, "`{name}`"),
            Column::Place(place) => write!(formatter, "{place}"),
        }
    }
}

impl<'de> Deserialize<'de> for Column {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Column, D::Error> {
        struct Named;

        impl Visitor<'_> for Named {
            type Value = Column;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name of a column, or its place, counting from 1")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Column, E> {
                if name.is_empty() {
                    return Err(E::custom("a column without a name"));
                }
                Ok(Column::Name(name.to_owned()))
            }

            fn visit_i64<E: Error>(self, place: i64) -> Result<Column, E> {
                let place = usize::try_from(place).ok().filter(|place| *place > 0);
                Ok(Column::Place(place.ok_or_else(|| E::custom("columns are counted from 1"))?))
            }
        }

        deserializer.deserialize_any(Named)
    }
}

/// A column that is used, and which of the line's cells that is. The cell is known when the mapping is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) column: Column,
    pub(crate) cell: usize,
}

impl<'de> Deserialize<'de> for Used {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Used, D::Error> {
        Ok(Used { column: Column::deserialize(deserializer)?, cell: 0 })
    }
}

/// What is done with a line whose value is against the field's grammar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IfInvalid {
    /// The line is refused.
    #[default]
    Refuse,
    /// The line is taken without the value.
    LeaveOut,
}

/// Words of the log and what they stand for: whole words, and beginnings of words, which end in `*` here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Words<V> {
    whole: HashMap<String, V>,
    /// Longest first.
    beginnings: Vec<(String, V)>,
}

impl<V> Words<V> {
    pub(crate) fn new(written: impl IntoIterator<Item = (String, V)>) -> Words<V> {
        let mut words = Words { whole: HashMap::new(), beginnings: Vec::new() };
        for (word, value) in written {
            match word.strip_suffix('*') {
                Some(beginning) => words.beginnings.push((beginning.to_owned(), value)),
                None => drop(words.whole.insert(word, value)),
            }
        }
        words.beginnings.sort_by_key(|(beginning, _)| std::cmp::Reverse(beginning.len()));
        words
    }

    pub(crate) fn get(&self, word: &str) -> Option<&V> {
        let beginning = || self.beginnings.iter().find(|(beginning, _)| word.starts_with(beginning.as_str())).map(|(_, value)| value);
        self.whole.get(word).or_else(beginning)
    }
}

/// Where the value of a field comes from that holds a `K`.
#[derive(Debug)]
pub(crate) struct Rule<K: Kind> {
    source: Source<K::Value>,
    pub(crate) if_invalid: IfInvalid,
}

#[derive(Debug)]
enum Source<V> {
    Constant(V),
    Column { used: Used, take: Option<Take>, words: Option<Words<V>>, default: Option<V> },
}

/// Characters of a value, the first and the last, counting from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "(usize, usize)")]
pub(crate) struct Take {
    first: usize,
    last: usize,
}

impl TryFrom<(usize, usize)> for Take {
    type Error = &'static str;

    fn try_from((first, last): (usize, usize)) -> Result<Take, Self::Error> {
        if first == 0 || last < first {
            return Err("`take` is the first and the last character to be taken, counting from 1");
        }
        Ok(Take { first, last })
    }
}

impl Take {
    fn of(self, text: &str) -> &str {
        let place = |count: usize| text.char_indices().nth(count).map_or(text.len(), |(place, _)| place);
        text.get(place(self.first - 1)..place(self.last)).unwrap_or_default()
    }
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    column: Used,
    take: Option<Take>,
    values: Option<BTreeMap<String, String>>,
    default: Option<String>,
    #[serde(default)]
    if_invalid: IfInvalid,
}

/// What can be done with every rule.
pub(crate) trait Field {
    type Value;

    /// The value in a line. None where there is none.
    ///
    /// # Errors
    /// With what is wrong with it, without it.
    fn value(&self, cells: &Cells) -> Result<Option<Self::Value>, String>;

    fn if_invalid(&self) -> IfInvalid;

    /// The columns that it uses.
    fn columns(&mut self, visit: &mut dyn FnMut(&mut Used));

    /// A value in words.
    fn shown(value: &Self::Value) -> String;
}

impl<K: Kind> Field for Rule<K> {
    type Value = K::Value;

    fn value(&self, cells: &Cells) -> Result<Option<K::Value>, String> {
        let (used, take, words, default) = match &self.source {
            Source::Constant(value) => return Ok(Some(value.clone())),
            Source::Column { used, take, words, default } => (used, take, words, default),
        };
        let cell = cells.get(used.cell);
        let text = take.map_or(cell, |take| take.of(cell).trim());
        if let Some(words) = words {
            return match words.get(text) {
                Some(value) => Ok(Some(value.clone())),
                None if text.is_empty() || default.is_some() => Ok(default.clone()),
                None => Err("has a value that is not among `values`".into()),
            };
        }
        if text.is_empty() { Ok(default.clone()) } else { K::read(text).map(Some) }
    }

    fn if_invalid(&self) -> IfInvalid {
        self.if_invalid
    }

    fn columns(&mut self, visit: &mut dyn FnMut(&mut Used)) {
        if let Source::Column { used, .. } = &mut self.source {
            visit(used);
        }
    }

    fn shown(value: &K::Value) -> String {
        K::shown(value)
    }
}

impl<K: Kind> Rule<K> {
    /// The column that it takes its value from.
    pub(crate) fn used(&self) -> Option<&Used> {
        match &self.source {
            Source::Constant(_) => None,
            Source::Column { used, .. } => Some(used),
        }
    }
}

fn constant<K: Kind, E: Error>(text: &str) -> Result<K::Value, E> {
    K::read(text).map_err(|wrong| E::custom(format!("`{}` {wrong}", text.escape_debug())))
}

impl<'de, K: Kind> Deserialize<'de> for Rule<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rule<K>, D::Error> {
        struct Either<K>(PhantomData<K>);

        impl<'de, K: Kind> Visitor<'de> for Either<K> {
            type Value = Rule<K>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a value for every line, or a table with `column`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Rule<K>, E> {
                Ok(Rule { source: Source::Constant(constant::<K, E>(text)?), if_invalid: IfInvalid::Refuse })
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Rule<K>, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<Rule<K>, E> {
                self.visit_str(if flag { "true" } else { "false" })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Rule<K>, A::Error> {
                let Written { column, take, values, default, if_invalid } = Written::deserialize(MapAccessDeserializer::new(map))?;
                let word = |(word, value): (String, String)| Ok((word, constant::<K, A::Error>(&value)?));
                let words = values.map(|values| values.into_iter().map(word).collect::<Result<Vec<_>, _>>()).transpose()?;
                let default = default.map(|default| constant::<K, A::Error>(&default)).transpose()?;
                let source = Source::Column { used: column, take, words: words.map(Words::new), default };
                Ok(Rule { source, if_invalid })
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use faultline_proto::outcome::v1::Stage;

    use super::super::kind::{Digits, Identifier, Named};
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(bound = "")]
    struct Holder<K: Kind> {
        rule: Rule<K>,
    }

    fn rule<K: Kind>(text: &str) -> Result<Rule<K>, String> {
        toml::from_str::<Holder<K>>(text).map(|holder| holder.rule).map_err(|error| error.to_string())
    }

    fn value<K: Kind>(text: &str, cell: &str) -> Result<Option<K::Value>, String> {
        rule::<K>(text).unwrap().value(&Cells::of(&[cell]))
    }

    #[test]
    fn a_value_is_of_a_column_a_table_or_the_same_for_all() {
        assert_eq!(value::<Identifier<8>>("rule = 'ABC'", ""), Ok(Some("ABC".into())));
        assert_eq!(value::<Digits<1, 6>>("rule = 7", ""), Ok(Some("7".into())));
        assert_eq!(value::<Identifier<8>>("rule = { column = 'A' }", "xyz"), Ok(Some("xyz".into())));
        assert_eq!(value::<Identifier<8>>("rule = { column = 1 }", ""), Ok(None));
        assert_eq!(value::<Identifier<8>>("rule = { column = 1, default = 'none' }", ""), Ok(Some("none".into())));
        assert_eq!(value::<Digits<1, 6>>("rule = { column = 1, take = [3, 4] }", "051234"), Ok(Some("12".into())));
        assert_eq!(value::<Digits<1, 6>>("rule = { column = 1, take = [3, 4] }", "05"), Ok(None));

        let stage = "rule = { column = 'RC', values = { '' = 'wait', '*' = 'host_decision', 'Y*' = 'offline_decision', 'YX' = 'send' } }";
        for (cell, expected) in [("", Stage::Wait), ("00", Stage::HostDecision), ("Y1", Stage::OfflineDecision), ("YX", Stage::Send)] {
            assert_eq!(value::<Named<Stage>>(stage, cell), Ok(Some(expected.into())), "{cell}");
        }
        let table = "rule = { column = 'RC', values = { a = 'wait' } }";
        assert_eq!(value::<Named<Stage>>(table, "b"), Err("has a value that is not among `values`".into()));
        assert_eq!(value::<Named<Stage>>(table, ""), Ok(None));
        assert_eq!(value::<Named<Stage>>("rule = { column = 'RC', values = { a = 'wait' }, default = 'send' }", "b"), Ok(Some(6)));
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_line() {
        for (text, said) in [
            ("rule = { colum = 'A' }", "unknown field `colum`"),
            ("rule = { default = 'wait' }", "missing field `column`"),
            ("rule = 'waiting'", "`waiting` is not one of unspecified, card_read, "),
            ("rule = { column = 'A', values = { a = 'waiting' } }", "`waiting` is not one of"),
            ("rule = { column = 'A', default = 'waiting' }", "`waiting` is not one of"),
            ("rule = { column = 0 }", "columns are counted from 1"),
            ("rule = { column = 'A', take = [3, 2] }", "`take` is the first and the last character"),
            ("rule = { column = 'A', if_invalid = 'ignore' }", "unknown variant `ignore`, expected `refuse` or `leave_out`"),
            ("rule = [1]", "expected a value for every line, or a table with `column`"),
        ] {
            let message = rule::<Named<Stage>>(&format!("\n\n{text}")).unwrap_err();
            assert!(message.contains(said) && message.contains("line 3"), "{message}");
        }
    }
}
