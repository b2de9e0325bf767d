//! What is asked: the parameters of the API, each with its limits. What is wrong is answered with its name and its value.

use std::fmt;

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use faultline_proto::incident::v1::IncidentState;
use faultline_proto::verdict::v1::Cause;
use faultline_store::Slice;
use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};

use crate::problem::Problem;

/// How long a slice may be as a text.
const MAX_SLICE_LENGTH: usize = 600;

/// Whose fleet it is about.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct OfTenant {
    /// Name of the tenant.
    #[param(min_length = 1, max_length = 32, pattern = "^[A-Za-z0-9._-]+$")]
    pub(crate) tenant: String,
}

/// Which incident it is about.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct OfIncident {
    /// Name of the tenant.
    #[param(min_length = 1, max_length = 32, pattern = "^[A-Za-z0-9._-]+$")]
    pub(crate) tenant: String,
    /// Its identifier.
    #[param(value_type = String, min_length = 1, max_length = 64)]
    pub(crate) incident_id: IncidentId,
}

/// Which counts are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct CountsQuery {
    /// How long a time.
    #[param(value_type = Option<u32>, minimum = 5, maximum = 10080, default = 60)]
    pub(crate) minutes: Option<Within<5, 10080>>,
    /// Until when; later than now is now. Without it, now.
    #[param(value_type = Option<String>, format = DateTime)]
    pub(crate) until: Option<Moment>,
    /// Of which slice: `fleet`, or values that are counted together, such as `issuer=icbc&entry_mode=chip`.
    #[param(value_type = Option<String>, default = "fleet", max_length = 600, pattern = "^(fleet|(acquirer|carrier|entry_mode|firmware|host|issuer|merchant_group|model|region)=.*)$")]
    pub(crate) slice: Option<InSlice>,
}

/// Which incidents are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct IncidentsQuery {
    /// Of which anything was learnt in the last so many minutes.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 43200, default = 1440)]
    pub(crate) minutes: Option<Within<1, 43200>>,
    /// In this state alone.
    pub(crate) state: Option<StateName>,
    /// How many at most: those that were opened last.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    pub(crate) limit: Option<Within<1, 200>>,
}

/// Which outcomes are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutcomesQuery {
    /// Of this terminal alone.
    #[param(value_type = Option<String>, min_length = 1, max_length = 32, pattern = "^[A-Za-z0-9._-]+$")]
    pub(crate) terminal: Option<Name>,
    /// In this slice: `fleet`, or values such as `issuer=icbc&region=310000`, in any combination.
    #[param(value_type = Option<String>, default = "fleet", max_length = 600, pattern = "^(fleet|(acquirer|carrier|entry_mode|firmware|host|issuer|merchant_group|model|region)=.*)$")]
    pub(crate) slice: Option<InSlice>,
    /// Of this cause alone.
    pub(crate) cause: Option<CauseName>,
    /// Whether those that were approved are left out.
    #[param(value_type = Option<bool>, default = false)]
    pub(crate) failed: Option<TrueOrFalse>,
    /// How long a time. Without a terminal, 1440 at most are looked at.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 10080, default = 60)]
    pub(crate) minutes: Option<Within<1, 10080>>,
    /// Until when; later than now is now. Without it, now.
    #[param(value_type = Option<String>, format = DateTime)]
    pub(crate) until: Option<Moment>,
    /// How many at most: the newest.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    pub(crate) limit: Option<Within<1, 200>>,
}

/// Which unknown response codes are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnknownCodesQuery {
    /// How long a time until now.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 10080, default = 1440)]
    pub(crate) minutes: Option<Within<1, 10080>>,
    /// How many at most: those that were met most often.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    pub(crate) limit: Option<Within<1, 200>>,
}

/// Whose health is wanted, and over which time.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct HealthQuery {
    /// By what was reported in the last so many minutes.
    #[param(value_type = Option<u32>, minimum = 60, maximum = 10080, default = 10080)]
    pub(crate) minutes: Option<Within<60, 10080>>,
    /// How many at most: the worst.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    pub(crate) limit: Option<Within<1, 200>>,
}

/// Who has stopped reporting.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct SilentQuery {
    /// What is usual is known by the last so many weeks.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 4, default = 4)]
    pub(crate) weeks: Option<Within<1, 4>>,
    /// How many at most: the plainest.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    pub(crate) limit: Option<Within<1, 200>>,
}

/// Which terminals' health is wanted, and over which time.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct TerminalsQuery {
    /// Of this terminal alone.
    #[param(value_type = Option<String>, min_length = 1, max_length = 32, pattern = "^[A-Za-z0-9._-]+$")]
    pub(crate) terminal: Option<Name>,
    /// By what was reported in the last so many minutes.
    #[param(value_type = Option<u32>, minimum = 60, maximum = 10080, default = 10080)]
    pub(crate) minutes: Option<Within<60, 10080>>,
    /// How many at most: the worst.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    pub(crate) limit: Option<Within<1, 200>>,
}

/// How an incident stands.
#[derive(Clone, Copy, Debug, Deserialize, serde::Serialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StateName {
    /// It goes on.
    Open,
    /// Hardly anything is attempted in its slice any more: whether it is over cannot be seen.
    Unobserved,
    /// Approvals are back at the usual rate.
    Closed,
    /// It was unobserved for a day, and is not followed any more.
    Abandoned,
}

/// Whose fault an attempt's end is.
#[derive(Clone, Copy, Debug, Deserialize, serde::Serialize, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CauseName {
    /// Nobody's: it was approved.
    Approved,
    /// The way between the terminal and the acquirer's host.
    Network,
    /// The terminal itself.
    Device,
    /// The issuing bank's systems.
    Bank,
    /// The cardholder's account or card.
    Account,
    /// The acquirer's or switch's systems, the operator, or the merchant's configuration.
    Other,
    /// The evidence does not allow a decision.
    Unknown,
}

/// Each state by its two names.
const STATES: [(StateName, IncidentState); 4] = [
    (StateName::Open, IncidentState::Open),
    (StateName::Unobserved, IncidentState::Unobserved),
    (StateName::Closed, IncidentState::Closed),
    (StateName::Abandoned, IncidentState::Abandoned),
];

impl From<StateName> for IncidentState {
    fn from(name: StateName) -> IncidentState {
        STATES.iter().find(|(known, _)| *known == name).map_or(IncidentState::Unspecified, |(_, state)| *state)
    }
}

impl From<IncidentState> for StateName {
    fn from(state: IncidentState) -> StateName {
        STATES.iter().find(|(_, known)| *known == state).map_or(StateName::Open, |(name, _)| *name)
    }
}

/// Each cause by its two names, in the order in which they are shown.
pub(crate) const CAUSES: [(CauseName, Cause); 7] = [
    (CauseName::Approved, Cause::Approved),
    (CauseName::Network, Cause::Network),
    (CauseName::Device, Cause::Device),
    (CauseName::Bank, Cause::Bank),
    (CauseName::Account, Cause::Account),
    (CauseName::Other, Cause::Other),
    (CauseName::Unknown, Cause::Unknown),
];

impl From<CauseName> for Cause {
    fn from(name: CauseName) -> Cause {
        CAUSES.iter().find(|(known, _)| *known == name).map_or(Cause::Unknown, |(_, cause)| *cause)
    }
}

impl From<Cause> for CauseName {
    fn from(cause: Cause) -> CauseName {
        CAUSES.iter().find(|(_, known)| *known == cause).map_or(CauseName::Unknown, |(name, _)| *name)
    }
}

/// A whole number within limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Within<const LEAST: u32, const MOST: u32>(u32);

impl<const LEAST: u32, const MOST: u32> Within<LEAST, MOST> {
    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

impl<'de, const LEAST: u32, const MOST: u32> Deserialize<'de> for Within<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = |text: &str| text.parse().ok().filter(|number| (LEAST..=MOST).contains(number) && !text.starts_with('+')).map(Within);
        deserializer.deserialize_str(Text { read: number, expected: format!("is not a whole number from {LEAST} to {MOST}") })
    }
}

/// Whether it is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrueOrFalse(pub(crate) bool);

impl<'de> Deserialize<'de> for TrueOrFalse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| text.parse().ok().map(TrueOrFalse);
        deserializer.deserialize_str(Text { read, expected: "is not `true` or `false`".into() })
    }
}

/// A moment, in seconds since 1970-01-01 UTC: what is before that is that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) u32);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let moment = |text: &str| {
            let second = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp();
            Some(Moment(u32::try_from(second.max(0)).unwrap_or(u32::MAX)))
        };
        let expected = "is not a time as RFC 3339 writes it, such as 2026-11-25T14:40:00Z".into();
        deserializer.deserialize_str(Text { read: moment, expected })
    }
}

/// A slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InSlice(pub(crate) Slice);

impl<'de> Deserialize<'de> for InSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.chars().count() > MAX_SLICE_LENGTH {
            return Err(D::Error::custom(format!("is longer than {MAX_SLICE_LENGTH} characters")));
        }
        text.parse().map(InSlice).map_err(D::Error::custom)
    }
}

/// What a tenant or a terminal may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) String);

impl Name {
    /// What is wrong with another.
    pub(crate) const EXPECTED: &str = "is not 1 to 32 of A-Z a-z 0-9 . _ -";

    pub(crate) fn read(text: &str) -> Option<Name> {
        let is_name = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        is_name.then(|| Name(text.into()))
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text { read: Name::read, expected: Name::EXPECTED.into() })
    }
}

/// What an incident may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IncidentId(pub(crate) String);

impl IncidentId {
    pub(crate) fn read(text: &str) -> Option<IncidentId> {
        (1..=64).contains(&text.chars().count()).then(|| IncidentId(text.into()))
    }
}

impl<'de> Deserialize<'de> for IncidentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text { read: IncidentId::read, expected: "is not 1 to 64 characters".into() })
    }
}

/// Reads a value from a text, or says what was expected.
struct Text<F> {
    read: F,
    expected: String,
}

impl<T, F: Fn(&str) -> Option<T>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| E::custom(self.expected))
    }
}

/// The parameters in a path.
pub(crate) struct InPath<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<InPath<T>, Problem> {
        let read = Path::<T>::from_request_parts(parts, state).await;
        read.map(|Path(parameters)| InPath(parameters)).map_err(|rejection| {
            let kind = match &rejection {
                PathRejection::FailedToDeserializePathParams(failed) => Some(failed.kind()),
                _ => None,
            };
            match kind {
                Some(ErrorKind::DeserializeError { key, value, message }) => {
                    Problem::Parameter { field: key.clone(), value: Some(value.clone()), reason: message.clone() }
                }
                _ => Problem::Parameter { field: "path".into(), value: None, reason: "is not UTF-8 once it is decoded".into() },
            }
        })
    }
}

/// The parameters behind the question mark.
pub(crate) struct InQuery<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for InQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<InQuery<T>, Problem> {
        read_query(parts.uri.query().unwrap_or_default()).map(InQuery)
    }
}

fn read_query<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    serde_path_to_error::deserialize(serde_html_form::Deserializer::from_bytes(query.as_bytes())).map_err(|error| {
        let field = error.path().to_string();
        let reason = error.into_inner().to_string();
        let pairs: Vec<(String, String)> = serde_html_form::from_str(query).unwrap_or_default();
        let value = pairs.into_iter().find(|(name, _)| *name == field).map(|(_, value)| value);
        // What is said in `field` and `value` is not said again: it may be long.
        if let Some(known) = reason.strip_prefix(&format!("unknown field `{field}`, ")) {
            // It is the name that is wrong.
            return Problem::Parameter { reason: format!("is not a parameter here: {known}"), field, value: None };
        }
        let known = value.as_ref().and_then(|value| reason.strip_prefix(&format!("unknown variant `{value}`, ")));
        let reason = known.map_or_else(|| reason.clone(), |known| format!("is not known: {known}"));
        Problem::Parameter { field, value, reason }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused<T: DeserializeOwned + fmt::Debug>(query: &str, field: &str, value: Option<&str>, said: &str) {
        let problem = read_query::<T>(query).unwrap_err();
        let Problem::Parameter { field: its_field, value: its_value, reason } = problem else { panic!("{problem:?}") };
        assert_eq!((its_field.as_str(), its_value.as_deref()), (field, value), "{query}: {reason}");
        assert!(reason.contains(said), "{query}: {reason}");
    }

    #[test]
    fn what_is_asked_is_read() {
        let query: OutcomesQuery =
            read_query("terminal=T-1&slice=issuer%3Dicbc%26entry_mode%3Dchip&cause=bank&failed=true&minutes=10080&limit=200").unwrap();
        assert_eq!(query.terminal, Some(Name("T-1".into())));
        assert_eq!(query.slice.unwrap().0.to_string(), "issuer=icbc&entry_mode=chip");
        assert_eq!((query.cause, query.failed), (Some(CauseName::Bank), Some(TrueOrFalse(true))));
        assert_eq!((query.minutes.map(Within::get), query.limit.map(Within::get)), (Some(10080), Some(200)));
        let query: CountsQuery = read_query("until=2026-11-25T22:40:00.5%2B08:00").unwrap();
        assert_eq!((query.until, query.minutes), (Some(Moment(1_795_617_600)), None));
        assert_eq!(read_query::<CountsQuery>("until=0001-01-01T00:00:00Z").unwrap().until, Some(Moment(0)));
        assert_eq!(read_query::<IncidentsQuery>("state=closed").unwrap().state, Some(StateName::Closed));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value() {
        refused::<CountsQuery>("minutes=4", "minutes", Some("4"), "is not a whole number from 5 to 10080");
        refused::<CountsQuery>("minutes=+60", "minutes", Some(" 60"), "whole number");
        refused::<CountsQuery>("minutes=", "minutes", Some(""), "whole number");
        refused::<CountsQuery>("until=now", "until", Some("now"), "RFC 3339");
        refused::<CountsQuery>("slice=weather%3Drain", "slice", Some("weather=rain"), "dimensions among acquirer, carrier");
        let long = format!("issuer={}", "a".repeat(600));
        refused::<CountsQuery>(&format!("slice={long}"), "slice", Some(&long), "is longer than 600 characters");
        refused::<OutcomesQuery>("terminal=a%20b", "terminal", Some("a b"), "is not 1 to 32 of");
        refused::<OutcomesQuery>("cause=weather", "cause", Some("weather"), "expected one of `approved`");
        refused::<OutcomesQuery>("failed=maybe", "failed", Some("maybe"), "is not `true` or `false`");
        refused::<IncidentsQuery>("state=OPEN", "state", Some("OPEN"), "expected one of `open`");
        refused::<IncidentsQuery>("minuets=5", "minuets", None, "expected one of `minutes`, `state`, `limit`");
    }
}

#[cfg(test)]
mod fuzz {
    use faultline_fuzz::target;

    use super::*;

    /// What a query asks, as pairs of names and values.
    trait Asked: DeserializeOwned + fmt::Debug {
        fn pairs(&self) -> Vec<(&'static str, Option<String>)>;
    }

    fn number<const LEAST: u32, const MOST: u32>(number: Option<Within<LEAST, MOST>>) -> Option<String> {
        number.map(|number| {
            assert!((LEAST..=MOST).contains(&number.get()));
            number.get().to_string()
        })
    }

    fn word<T: serde::Serialize>(name: Option<T>) -> Option<String> {
        name.map(|name| serde_json::to_value(name).unwrap().as_str().unwrap().into())
    }

    fn slice(slice: Option<&InSlice>) -> Option<String> {
        slice.map(|slice| slice.0.to_string())
    }

    fn time(moment: Moment) -> String {
        OffsetDateTime::from_unix_timestamp(moment.0.into()).unwrap().format(&Rfc3339).unwrap()
    }

    impl Asked for CountsQuery {
        fn pairs(&self) -> Vec<(&'static str, Option<String>)> {
            vec![("minutes", number(self.minutes)), ("until", self.until.map(time)), ("slice", slice(self.slice.as_ref()))]
        }
    }

    impl Asked for IncidentsQuery {
        fn pairs(&self) -> Vec<(&'static str, Option<String>)> {
            vec![("minutes", number(self.minutes)), ("state", word(self.state)), ("limit", number(self.limit))]
        }
    }

    impl Asked for OutcomesQuery {
        fn pairs(&self) -> Vec<(&'static str, Option<String>)> {
            let terminal = self.terminal.as_ref().map(|name| name.0.clone());
            assert!(terminal.as_deref().is_none_or(|name| Name::read(name).is_some()));
            vec![
                ("terminal", terminal),
                ("slice", slice(self.slice.as_ref())),
                ("cause", word(self.cause)),
                ("failed", self.failed.map(|failed| failed.0.to_string())),
                ("minutes", number(self.minutes)),
                ("until", self.until.map(time)),
                ("limit", number(self.limit)),
            ]
        }
    }

    impl Asked for HealthQuery {
        fn pairs(&self) -> Vec<(&'static str, Option<String>)> {
            vec![("minutes", number(self.minutes)), ("limit", number(self.limit))]
        }
    }

    impl Asked for TerminalsQuery {
        fn pairs(&self) -> Vec<(&'static str, Option<String>)> {
            let terminal = self.terminal.as_ref().map(|name| name.0.clone());
            vec![("terminal", terminal), ("minutes", number(self.minutes)), ("limit", number(self.limit))]
        }
    }

    impl Asked for SilentQuery {
        fn pairs(&self) -> Vec<(&'static str, Option<String>)> {
            vec![("weeks", number(self.weeks)), ("limit", number(self.limit))]
        }
    }

    impl Asked for UnknownCodesQuery {
        fn pairs(&self) -> Vec<(&'static str, Option<String>)> {
            vec![("minutes", number(self.minutes)), ("limit", number(self.limit))]
        }
    }

    /// Reads a query. What is accepted is what is asked, and nothing else; of what is not, the parameter is named, and said back in few words.
    fn read<T: Asked>(query: &str) -> &'static str {
        let mut asked: Vec<(String, String)> = serde_html_form::from_str(query).unwrap();
        match read_query::<T>(query) {
            Ok(read) => {
                let mut pairs: Vec<_> = read.pairs().into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
                let again: T = read_query(&serde_html_form::to_string(&pairs).unwrap()).unwrap();
                assert_eq!(format!("{again:?}"), format!("{read:?}"));
                for (name, value) in &mut asked {
                    match name.as_str() {
                        "minutes" | "limit" => *value = value.parse::<u32>().unwrap().to_string(),
                        "until" => {
                            let second = OffsetDateTime::parse(value, &Rfc3339).unwrap().unix_timestamp();
                            *value = time(Moment(second.clamp(0, u32::MAX.into()).try_into().unwrap()));
                        }
                        "slice" => assert!(value.chars().count() <= MAX_SLICE_LENGTH),
                        _ => {}
                    }
                }
                asked.sort_unstable();
                pairs.sort_unstable();
                assert_eq!(asked, pairs);
                "read"
            }
            Err(Problem::Parameter { field, value, reason }) => {
                let of_name = |(name, its): &(String, String)| *name == field && value.as_ref().is_none_or(|value| value == its);
                assert!(asked.iter().any(of_name), "`{field}`, {value:?}: {reason}");
                let said = serde_json::to_string(&Problem::Parameter { field, value, reason }.details()).unwrap();
                assert!(said.chars().count() < 2500, "{said}");
                "refused"
            }
            Err(problem) => panic!("{problem:?}"),
        }
    }

    #[test]
    fn what_is_accepted_is_what_is_asked_and_what_is_not_is_named() {
        let fates = target!(Text, "query").run(|bytes| {
            let query = std::str::from_utf8(bytes).unwrap();
            let all = [
                read::<CountsQuery>(query),
                read::<IncidentsQuery>(query),
                read::<OutcomesQuery>(query),
                read::<UnknownCodesQuery>(query),
                read::<HealthQuery>(query),
                read::<TerminalsQuery>(query),
                read::<SilentQuery>(query),
            ];
            if all.contains(&"read") { "read" } else { "refused" }
        });
        fates.include(["read", "refused"]);
    }
}
