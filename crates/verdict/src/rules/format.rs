//! One file of rules: from its text to what it says, with the line of everything. `rules/iso8583.toml` explains the format.

use std::ops::Range;
use std::sync::Arc;

use faultline_proto::outcome::v1::{CardNetwork, Stage, TerminalCondition};
use prost_types::Timestamp;
use serde::Deserialize;
use toml::Spanned;
use toml::value::Datetime;

use crate::reason::tags;
use crate::{Cause, Fact, Facts, Family, LocalizedText, MerchantCause, Place, Reason, Retry, RulesError};

/// What a file says, without what it inherits.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Name and version of the set: `unionpay-pos/2026-11-29`.
    pub(crate) version: String,
    pub(crate) place: Place,
    pub(crate) inherits: Option<(String, Place)>,
    pub(crate) network: Option<CardNetwork>,
    pub(crate) acquirer: Option<String>,
    pub(crate) specs: Option<Vec<String>>,
    pub(crate) home: Option<bool>,
    pub(crate) force: Force,
    pub(crate) reasons: Vec<Reason>,
    pub(crate) rows: Vec<FileRow>,
    pub(crate) evidence: Vec<FileEvidence>,
    pub(crate) prevention: Vec<FilePrevention>,
    pub(crate) attributions: Vec<FileAttribution>,
}

/// A row of one of the three tables.
#[derive(Clone, Debug)]
pub(crate) struct FileRow {
    pub(crate) key: Key,
    pub(crate) reason: String,
    pub(crate) force: Force,
    pub(crate) place: Place,
    pub(crate) source: Arc<str>,
}

/// What reasons become where an outcome shows certain facts.
#[derive(Clone, Debug)]
pub(crate) struct FileEvidence {
    pub(crate) of: Vec<String>,
    pub(crate) all_of: Facts,
    pub(crate) none_of: Facts,
    /// None: the same.
    pub(crate) reason: Option<String>,
    /// In percent. None: that of the reason.
    pub(crate) confidence: Option<u8>,
    pub(crate) force: Force,
    pub(crate) place: Place,
    pub(crate) source: Arc<str>,
}

/// What keeps failures from happening again that a merchant is told of in one way.
#[derive(Clone, Debug)]
pub(crate) struct FilePrevention {
    pub(crate) merchant_cause: MerchantCause,
    pub(crate) text: LocalizedText,
    pub(crate) place: Place,
    pub(crate) source: Arc<str>,
}

/// What failures of a symptom stand for where they are those of one part of the fleet.
#[derive(Clone, Debug)]
pub(crate) struct FileAttribution {
    pub(crate) symptom: String,
    pub(crate) family: Family,
    pub(crate) reason: String,
    pub(crate) faults_per_day: f64,
    pub(crate) place: Place,
    pub(crate) source: Arc<str>,
}

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    Code(String),
    /// The number of a [`TerminalCondition`].
    Condition(i32),
    /// The number of a [`Stage`].
    Stage(i32),
}

/// When something holds, in milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Force {
    pub(crate) from: i64,
    /// Does not belong to it.
    pub(crate) until: i64,
}

impl Force {
    pub(crate) const ALWAYS: Force = Force { from: i64::MIN, until: i64::MAX };

    pub(crate) fn holds(self, at: i64) -> bool {
        // The greatest moment stands for an outcome without a time: it is after all that has an end.
        (self.from..self.until).contains(&at) || (at == i64::MAX && self.until == i64::MAX)
    }

    pub(crate) fn overlaps(self, other: Force) -> bool {
        self.from < other.until && other.from < self.until
    }

    pub(crate) fn covers(self, other: Force) -> bool {
        self.from <= other.from && other.until <= self.until
    }
}

impl File {
    /// The name of the set: what stands before the `/` of its version.
    pub(crate) fn id(&self) -> &str {
        self.version.split('/').next().unwrap_or_default()
    }

    /// Reads a file; `name` is what errors call it.
    pub(crate) fn parse(name: &str, text: &str) -> Result<File, RulesError> {
        let lines = Lines::new(name, text);
        let written: Written = toml::from_str(text).map_err(|error| {
            let place = lines.place(error.span().unwrap_or_default());
            RulesError { place, reason: error.message().trim().replace('\n', ", ") }
        })?;
        let place = lines.place(written.version.span());
        let wrong = |place: &Place, reason: String| Err(RulesError { place: place.clone(), reason });
        let version = written.version.into_inner();
        if !is_name(version.split('/').next().unwrap_or_default())
            || version.len() > MOST_VERSION
            || !version.bytes().all(|b| b.is_ascii_graphic())
        {
            return wrong(&place, format!("version `{version}` is not `<name>/<version>`, of letters, digits, `.` and `-`"));
        }
        let network = written.network.map(|network| (lines.place(network.span()), network.into_inner()));
        let network = network.map(|(place, name)| match CardNetwork::from_str_name(&format!("CARD_NETWORK_{}", name.to_uppercase())) {
            Some(network) if network != CardNetwork::Unspecified => Ok(network),
            _ => Err(RulesError { place, reason: format!("network `{name}` is none of the contract's") }),
        });
        let specs = written.specs.map(|specs| (lines.place(specs.span()), specs.into_inner()));
        if let Some((place, specs)) = &specs
            && let Some(spec) = specs.iter().find(|spec| spec.is_empty() || spec.len() > 32)
        {
            return wrong(place, format!("specs has `{spec}`, which no outcome can have"));
        }
        if let Some(acquirer) = &written.acquirer
            && (acquirer.get_ref().is_empty() || acquirer.get_ref().len() > 32)
        {
            return wrong(&lines.place(acquirer.span()), format!("acquirer `{}` is none that an outcome can have", acquirer.get_ref()));
        }
        let mut rows = Vec::new();
        for (table, written) in [(Table::Code, written.response_code), (Table::Condition, written.condition), (Table::Stage, written.stage)]
        {
            for row in written {
                let place = lines.place(row.span());
                rows.push(row.into_inner().read(table, place)?);
            }
        }
        let reasons = written.reason.into_iter().map(|row| {
            let place = lines.place(row.span());
            row.into_inner().read(place)
        });
        let evidence = written.evidence.into_iter().map(|row| {
            let place = lines.place(row.span());
            row.into_inner().read(place)
        });
        let prevention = written.prevention.into_iter().map(|row| {
            let place = lines.place(row.span());
            row.into_inner().read(place)
        });
        let attributions = written.attribution.into_iter().map(|row| {
            let place = lines.place(row.span());
            row.into_inner().read(place)
        });
        Ok(File {
            version,
            force: force(&place, written.effective_from.as_ref(), written.effective_until.as_ref())?,
            place,
            inherits: written.inherits.map(|base| (base.get_ref().clone(), lines.place(base.span()))),
            network: network.transpose()?,
            acquirer: written.acquirer.map(Spanned::into_inner),
            specs: specs.map(|(_, specs)| specs),
            home: written.home,
            reasons: reasons.collect::<Result<_, _>>()?,
            rows,
            evidence: evidence.collect::<Result<_, _>>()?,
            prevention: prevention.collect::<Result<_, _>>()?,
            attributions: attributions.collect::<Result<_, _>>()?,
        })
    }
}

/// Most minutes after which something is tried again: a day.
const MOST_MINUTES: u32 = 1440;
/// Bytes that the contract has for it (`rule_set_version`), without the digits that are added.
const MOST_VERSION: usize = 48;

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

/// Where lines begin, to say in which one something stands.
struct Lines {
    file: Arc<str>,
    begins: Vec<usize>,
}

impl Lines {
    fn new(file: &str, text: &str) -> Lines {
        let begins = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(place, _)| place + 1);
        Lines { file: file.into(), begins: begins.collect() }
    }

    fn place(&self, span: Range<usize>) -> Place {
        let line = self.begins.partition_point(|begin| *begin <= span.start) + 1;
        Place { file: Arc::clone(&self.file), line: u32::try_from(line).unwrap_or(u32::MAX) }
    }
}

#[derive(Clone, Copy)]
enum Table {
    Code,
    Condition,
    Stage,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: Spanned<String>,
    inherits: Option<Spanned<String>>,
    network: Option<Spanned<String>>,
    acquirer: Option<Spanned<String>>,
    specs: Option<Spanned<Vec<String>>>,
    home: Option<bool>,
    effective_from: Option<Datetime>,
    effective_until: Option<Datetime>,
    #[serde(default)]
    reason: Vec<Spanned<WrittenReason>>,
    #[serde(default)]
    response_code: Vec<Spanned<WrittenRow>>,
    #[serde(default)]
    condition: Vec<Spanned<WrittenRow>>,
    #[serde(default)]
    stage: Vec<Spanned<WrittenRow>>,
    #[serde(default)]
    evidence: Vec<Spanned<WrittenEvidence>>,
    #[serde(default)]
    prevention: Vec<Spanned<WrittenPrevention>>,
    #[serde(default)]
    attribution: Vec<Spanned<WrittenAttribution>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenReason {
    id: String,
    cause: String,
    class: String,
    #[serde(default)]
    symptom: String,
    merchant_cause: String,
    confidence: i64,
    retry: String,
    retry_minutes: Option<u32>,
    meaning: Text,
    cashier: Text,
    service_desk: Text,
    prevention: Option<Text>,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    zh_cn: String,
    en: String,
}

/// A row names itself by `code`, `condition` or `stage`, whichever table it is in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRow {
    code: Option<String>,
    condition: Option<String>,
    stage: Option<String>,
    reason: String,
    source: String,
    effective_from: Option<Datetime>,
    effective_until: Option<Datetime>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEvidence {
    of: Vec<String>,
    all_of: Vec<String>,
    #[serde(default)]
    none_of: Vec<String>,
    reason: Option<String>,
    confidence: Option<i64>,
    source: String,
    effective_from: Option<Datetime>,
    effective_until: Option<Datetime>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPrevention {
    merchant_cause: String,
    zh_cn: String,
    en: String,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenAttribution {
    symptom: String,
    family: String,
    reason: String,
    faults_per_day: f64,
    source: String,
}

impl WrittenAttribution {
    fn read(self, place: Place) -> Result<FileAttribution, RulesError> {
        let wrong = |reason: String| RulesError { place: place.clone(), reason };
        let family = Family::ALL.into_iter().find(|family| family.name() == self.family);
        let family =
            family.ok_or_else(|| wrong(format!("family `{}` is none of {}", self.family, Family::ALL.map(Family::name).join(", "))))?;
        if !(self.faults_per_day > 0.0 && self.faults_per_day <= 1.0) {
            return Err(wrong(format!("faults_per_day {} is not above 0 and up to 1", self.faults_per_day)));
        }
        let WrittenAttribution { symptom, reason, faults_per_day, source, .. } = self;
        Ok(FileAttribution { symptom, family, reason, faults_per_day, place, source: source.into() })
    }
}

impl WrittenEvidence {
    fn read(self, place: Place) -> Result<FileEvidence, RulesError> {
        let wrong = |reason: String| RulesError { place: place.clone(), reason };
        let facts = |field: &str, names: &[String]| {
            let of_name = |name: &String| {
                let fact = Fact::ALL.into_iter().find(|fact| fact.id() == name);
                fact.ok_or_else(|| wrong(format!("{field} names fact `{name}`, which there is not")))
            };
            names.iter().map(of_name).collect::<Result<Facts, RulesError>>()
        };
        let (all_of, none_of) = (facts("all_of", &self.all_of)?, facts("none_of", &self.none_of)?);
        if self.of.is_empty() {
            return Err(wrong("evidence of no reason: `of` is empty".into()));
        }
        // Without a fact, every outcome of the reason would have it.
        if all_of.is_empty() {
            return Err(wrong("evidence without a fact: `all_of` is empty".into()));
        }
        if all_of.has_any(none_of) {
            return Err(wrong(format!("evidence wants {all_of} and not {none_of}, which no outcome can have")));
        }
        if self.reason.is_none() && self.confidence.is_none() {
            return Err(wrong("evidence gives neither a reason nor a confidence".into()));
        }
        let confidence =
            self.confidence.map(|confidence| percent(confidence).ok_or_else(|| wrong(format!("confidence {confidence} is not 0 to 100"))));
        let force = force(&place, self.effective_from.as_ref(), self.effective_until.as_ref())?;
        let confidence = confidence.transpose()?;
        let WrittenEvidence { of, reason, source, .. } = self;
        Ok(FileEvidence { of, all_of, none_of, reason, confidence, force, place, source: source.into() })
    }
}

impl WrittenPrevention {
    fn read(self, place: Place) -> Result<FilePrevention, RulesError> {
        let wrong = |reason: String| RulesError { place: place.clone(), reason };
        let Some(merchant_cause) = merchant_cause(&self.merchant_cause) else {
            return Err(wrong(format!("prevention has merchant_cause `{}`, which there is not", self.merchant_cause)));
        };
        let text = Text { zh_cn: self.zh_cn, en: self.en };
        if text.is_missing() {
            return Err(wrong(format!("prevention of `{}` has no text in one of the languages", self.merchant_cause)));
        }
        Ok(FilePrevention { merchant_cause, text: text.localized(), place, source: self.source.into() })
    }
}

fn merchant_cause(id: &str) -> Option<MerchantCause> {
    MerchantCause::ALL.into_iter().find(|cause| cause.id() == id)
}

fn percent(number: i64) -> Option<u8> {
    u8::try_from(number).ok().filter(|percent| *percent <= 100)
}

impl Text {
    fn is_missing(&self) -> bool {
        self.zh_cn.trim().is_empty() || self.en.trim().is_empty()
    }

    fn localized(self) -> LocalizedText {
        LocalizedText { zh_cn: self.zh_cn, en: self.en }
    }
}

impl WrittenRow {
    fn read(self, table: Table, place: Place) -> Result<FileRow, RulesError> {
        let wrong = |reason: String| RulesError { place: place.clone(), reason };
        let key = match (table, self.code, self.condition, self.stage) {
            (Table::Code, Some(code), None, None) if (1..=16).contains(&code.len()) => Key::Code(code),
            (Table::Code, Some(code), None, None) => return Err(wrong(format!("code `{code}` is not 1 to 16 bytes long"))),
            (Table::Condition, None, Some(name), None) => {
                let number = TerminalCondition::from_str_name(&format!("TERMINAL_CONDITION_{}", name.to_uppercase()));
                Key::Condition(number.ok_or_else(|| wrong(format!("condition `{name}` is none of the contract's")))?.into())
            }
            (Table::Stage, None, None, Some(name)) => {
                let number = Stage::from_str_name(&format!("STAGE_{}", name.to_uppercase()));
                Key::Stage(number.ok_or_else(|| wrong(format!("stage `{name}` is none of the contract's")))?.into())
            }
            (Table::Code, ..) => return Err(wrong("a response code is named by `code` alone".into())),
            (Table::Condition, ..) => return Err(wrong("a condition is named by `condition` alone".into())),
            (Table::Stage, ..) => return Err(wrong("a stage is named by `stage` alone".into())),
        };
        let force = force(&place, self.effective_from.as_ref(), self.effective_until.as_ref())?;
        Ok(FileRow { key, reason: self.reason, force, place, source: self.source.into() })
    }
}

impl WrittenReason {
    fn read(self, place: Place) -> Result<Reason, RulesError> {
        let wrong = |what: String| Err(RulesError { place: place.clone(), reason: format!("reason `{}` {what}", self.id) });
        let cause = match Cause::from_str_name(&format!("CAUSE_{}", self.cause.to_uppercase())) {
            Some(cause) if cause != Cause::Unspecified => cause,
            _ => return wrong(format!("has cause `{}`, which there is not", self.cause)),
        };
        let Some(merchant_cause) = merchant_cause(&self.merchant_cause) else {
            return wrong(format!("has merchant_cause `{}`, which there is not", self.merchant_cause));
        };
        let Some(confidence) = percent(self.confidence) else {
            return wrong(format!("has confidence {}, which is not 0 to 100", self.confidence));
        };
        let retry = match (self.retry.as_str(), self.retry_minutes) {
            ("now", None) => Retry::Now,
            ("later", Some(minutes)) if (1..=MOST_MINUTES).contains(&minutes) => Retry::Later(minutes),
            ("other_card", None) => Retry::OtherCard,
            ("other_method", None) => Retry::OtherMethod,
            ("never", None) => Retry::Never,
            ("query_first", None) => Retry::QueryFirst,
            ("later", Some(minutes)) => return wrong(format!("has retry_minutes {minutes}, which is not 1 to {MOST_MINUTES}")),
            ("later", None) => return wrong("is to be tried later, and does not say after how many minutes (`retry_minutes`)".into()),
            (other, _) => return wrong(format!("has retry `{other}`, which there is not, or minutes that it does not take")),
        };
        let texts = [("meaning", &self.meaning), ("cashier", &self.cashier), ("service_desk", &self.service_desk)];
        for (field, text) in texts.into_iter().chain(self.prevention.as_ref().map(|text| ("prevention", text))) {
            if text.is_missing() {
                return wrong(format!("has no `{field}` in one of the languages"));
            }
        }
        Ok(Reason {
            cause,
            merchant_cause,
            confidence,
            retry,
            tags: tags(&self.class),
            class: self.class,
            symptom: self.symptom,
            meaning: self.meaning.localized(),
            cashier: self.cashier.localized(),
            service_desk: self.service_desk.localized(),
            prevention: self.prevention.map(Text::localized),
            source: self.source,
            id: self.id,
            place,
        })
    }
}

/// From and until, where they are stated.
fn force(place: &Place, from: Option<&Datetime>, until: Option<&Datetime>) -> Result<Force, RulesError> {
    let moment = |key: &str, written: Option<&Datetime>, otherwise: i64| {
        let Some(written) = written else { return Ok(otherwise) };
        let wrong =
            || RulesError { place: place.clone(), reason: format!("{key} {written} is neither a date nor a moment with its offset") };
        if written.date.is_none() || (written.time.is_some() && written.offset.is_none()) {
            return Err(wrong());
        }
        let time: Timestamp = written.to_string().parse().map_err(|_| wrong())?;
        Ok(time.seconds.saturating_mul(1000))
    };
    let force = Force { from: moment("effective_from", from, i64::MIN)?, until: moment("effective_until", until, i64::MAX)? };
    if force.from >= force.until {
        return Err(RulesError { place: place.clone(), reason: "effective_from is not before effective_until".into() });
    }
    Ok(force)
}
