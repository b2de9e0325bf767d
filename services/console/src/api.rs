//! The API: what can be asked under `/api/v1`, and how it is answered.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{HeaderValue, Uri, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::{Json, Router};
use faultline_proto::incident::v1::IncidentState;
use faultline_proto::verdict::v1::Cause;
use faultline_store::{CountedSlice, Database, StepCount, UsualRates, Wanted, WantedIncidents};
use faultline_verdict::Rules;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::timeout;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{ByCause, Outcome, Outcomes, Series, Summary, Tenants, Time, UsualSeries, UsualWindow, Window};
use crate::health::{self, MerchantsHealth, ShopsHealth, TerminalsHealth};
use crate::incident::{Incident, IncidentHistory, Incidents, Revision};
use crate::problem::{Problem, Problems};
use crate::question::{
    CauseName, CountsQuery, HealthQuery, InPath, InQuery, IncidentsQuery, Name, OfIncident, OfTenant, OutcomesQuery, SilentQuery,
    TerminalsQuery, UnknownCodesQuery, Within,
};
use crate::silence::{self, Silences};
use crate::unknown_codes::UnknownCodes;

const BUCKET_S: u32 = 10;
const MINUTE_S: u32 = 60;
const WEEK_MINUTES: u32 = 10_080;
/// Where nobody says how far counts reach: how long after their end ten seconds are taken for counted.
const SETTLED_AFTER_S: u32 = 10;
/// How long steps may be, and how many there may be of the shorter ones in one answer.
const STEPS_S: [u32; 3] = [10, 60, 300];
const LONGEST_STEP_S: u32 = 3600;
const MAX_STEPS: u32 = 360;
/// Without a terminal to look for, this is how long a time is looked at.
const MAX_MINUTES_OF_ALL: u32 = 1440;
/// How long ago something may have been learnt of an incident that counts as open, and how many of them are counted.
const OPEN_SINCE_S: u32 = 30 * 86_400;
const MAX_OPEN: u32 = 200;
/// Questions that are asked for one answer at one moment.
const QUESTIONS_OF_ANSWER: u32 = 3;
/// How long a question may wait for others.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(2);

/// What all answers are made from. Clones are the same.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Inner>);

struct Inner {
    database: Database,
    rules: watch::Receiver<Arc<Rules>>,
    /// A permit a question to the store.
    questions: Semaphore,
    /// Tenants of which something was counted.
    tenants: RwLock<HashSet<String>>,
}

impl Shared {
    pub(crate) fn new(database: Database, rules: watch::Receiver<Arc<Rules>>, max_questions: usize) -> Shared {
        Shared(Arc::new(Inner { database, rules, questions: Semaphore::new(max_questions), tenants: RwLock::default() }))
    }

    /// The rules by which is advised.
    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.0.rules.borrow())
    }

    /// The store, for as many questions at one moment as an answer needs at most; waits while too many others are asking.
    async fn store(&self) -> Result<(SemaphorePermit<'_>, &Database), Problem> {
        match timeout(WAIT_FOR_OTHERS, self.0.questions.acquire_many(QUESTIONS_OF_ANSWER)).await {
            Ok(Ok(permit)) => Ok((permit, &self.0.database)),
            _ => Err(Problem::Busy),
        }
    }

    /// The store, for a question about a tenant, if there is one of that name.
    async fn store_of(&self, tenant: &str) -> Result<(SemaphorePermit<'_>, &Database), Problem> {
        if Name::read(tenant).is_none() {
            let (field, value) = ("tenant".into(), Some(tenant.into()));
            return Err(Problem::Parameter { field, value, reason: Name::EXPECTED.into() });
        }
        let (permit, database) = self.store().await?;
        let is_known = self.0.tenants.read().unwrap_or_else(PoisonError::into_inner).contains(tenant);
        if !is_known {
            if !database.knows_tenant(tenant).await? {
                return Err(Problem::Missing { what: format!("tenant `{tenant}`: nothing was ever counted of it") });
            }
            self.0.tenants.write().unwrap_or_else(PoisonError::into_inner).insert(tenant.into());
        }
        Ok((permit, database))
    }
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Faultline",
    description = "Whose fault failed card payments are, as it is known by now. Times are UTC, of when attempts were completed; counts are of attempts. \
                   A part that was not asked for is never in an answer; parameters that do not exist are refused.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Document;

/// The routes of the API, and their document at `/api/v1/openapi.json`.
pub(crate) fn router(shared: Shared) -> Router {
    let (routes, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(tenants))
        .routes(routes!(summary))
        .routes(routes!(counts))
        .routes(routes!(incidents))
        .routes(routes!(incident))
        .routes(routes!(outcomes))
        .routes(routes!(unknown_codes))
        .routes(routes!(terminals_health))
        .routes(routes!(shops_health))
        .routes(routes!(merchants_health))
        .routes(routes!(silent))
        .split_for_parts();
    routes
        .route("/api/v1/openapi.json", axum::routing::get(async move || Json(document)))
        .route("/api", axum::routing::any(nothing))
        .route("/api/{*path}", axum::routing::any(nothing))
        .method_not_allowed_fallback(async || Problem::Method)
        .layer(map_response(kept_by_nobody))
        .with_state(shared)
}

/// What people see here is theirs, and old in a moment.
async fn kept_by_nobody(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn nothing(uri: Uri) -> Problem {
    Problem::Missing { what: format!("`{}` here; `/api/v1/openapi.json` says what there is", uri.path()) }
}

/// Whose outcomes were counted in the last seven days.
#[utoipa::path(get, path = "/api/v1/tenants", responses((status = 200, body = Tenants), Problems))]
async fn tenants(State(shared): State<Shared>) -> Result<Json<Tenants>, Problem> {
    let (_permit, database) = shared.store().await?;
    let counted = database.counted(None, now()).await?;
    Ok(Json(Tenants { tenants: counted.into_iter().map(Into::into).collect() }))
}

/// How a fleet stands: the last minute, what is usual of it, and how many incidents are open.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/summary", params(OfTenant), responses((status = 200, body = Summary), Problems))]
async fn summary(State(shared): State<Shared>, InPath(OfTenant { tenant }): InPath<OfTenant>) -> Result<Json<Summary>, Problem> {
    let (_permit, database) = shared.store_of(&tenant).await?;
    let now = now();
    let (counted_until, progress) = tokio::try_join!(counted_until(database, &tenant, now), database.progress())?;
    let settled_until = settled(now, progress, counted_until).max(MINUTE_S);
    let minute = settled_until - MINUTE_S..settled_until;
    let fleet = CountedSlice::fleet();
    let fleet = (tenant.as_str(), &fleet);
    let still_open = WantedIncidents {
        tenant: &tenant,
        updated_since: now.saturating_sub(OPEN_SINCE_S),
        states: &[IncidentState::Open, IncidentState::Unobserved],
        limit: MAX_OPEN,
    };
    let (counts, usual, open) = tokio::try_join!(
        database.series(fleet, &minute, BUCKET_S),
        database.usual_rates(fleet, &minute),
        database.latest_incidents(&still_open)
    )?;
    let mut by_cause = ByCause::<u64>::default();
    for count in &counts {
        *by_cause.at(count.cause().into()) += count.attempts;
    }
    let attempts = counts.iter().map(|count| count.attempts).sum();
    let window = Window {
        begin: Time::of_second(minute.start),
        end: Time::of_second(minute.end),
        attempts,
        success_rate: share(by_cause.approved, attempts),
        by_cause,
    };
    let usual = usual.at(minute.start + MINUTE_S / 2).map(|rate| UsualWindow::of(rate, MINUTE_S.into()));
    Ok(Json(Summary {
        tenant,
        time: Time::of_second(now),
        settled_until: Time::of_second(settled_until),
        counted_until: counted_until.map(Time::of_second),
        window,
        usual,
        open_incidents: open.len(),
    }))
}

/// How the counts of a slice went over time, and what is usual of them.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/counts", params(OfTenant, CountsQuery), responses((status = 200, body = Series), Problems))]
async fn counts(
    State(shared): State<Shared>,
    InPath(OfTenant { tenant }): InPath<OfTenant>,
    InQuery(query): InQuery<CountsQuery>,
) -> Result<Json<Series>, Problem> {
    let slice = query.slice.unwrap_or_default().0;
    let counted = slice
        .counted()
        .ok_or_else(|| Problem::Missing { what: format!("count of slice `{slice}`: its values are not counted together") })?;
    let (_permit, database) = shared.store_of(&tenant).await?;
    let now = now();
    let (time, step_s) = steps(query.minutes.map_or(60, Within::get), query.until.map_or(now, |until| until.0.min(now)));
    let of_slice = (tenant.as_str(), &counted);
    let (counted_until, progress) = tokio::try_join!(counted_until(database, &tenant, now), database.progress())?;
    let (counts, usual) = tokio::try_join!(database.series(of_slice, &time, step_s), database.usual_rates(of_slice, &time))?;
    let (attempts, by_cause) = by_step(&counts, &time, step_s);
    Ok(Json(Series {
        slice: slice.to_string(),
        begin: Time::of_second(time.start),
        end: Time::of_second(time.end),
        step_s,
        attempts,
        by_cause,
        usual: usual_by_step(&usual, &time, step_s),
        settled_until: Time::of_second(settled(now, progress, counted_until)),
    }))
}

/// Incidents of the last time.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/incidents", params(OfTenant, IncidentsQuery), responses((status = 200, body = Incidents), Problems))]
async fn incidents(
    State(shared): State<Shared>,
    InPath(OfTenant { tenant }): InPath<OfTenant>,
    InQuery(query): InQuery<IncidentsQuery>,
) -> Result<Json<Incidents>, Problem> {
    let (_permit, database) = shared.store_of(&tenant).await?;
    let states: Vec<IncidentState> = query.state.into_iter().map(Into::into).collect();
    let wanted = WantedIncidents {
        tenant: &tenant,
        updated_since: now().saturating_sub(query.minutes.map_or(1440, Within::get) * MINUTE_S),
        states: &states,
        limit: query.limit.map_or(50, Within::get),
    };
    let rows = database.latest_incidents(&wanted).await?;
    Ok(Json(Incidents { incidents: rows.iter().map(Incident::from).collect() }))
}

/// An incident, and what became of it.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/incidents/{incident_id}", params(OfIncident), responses((status = 200, body = IncidentHistory), Problems))]
async fn incident(
    State(shared): State<Shared>,
    InPath(OfIncident { tenant, incident_id }): InPath<OfIncident>,
) -> Result<Json<IncidentHistory>, Problem> {
    let (_permit, database) = shared.store_of(&tenant).await?;
    let rows = database.revisions(&tenant, &incident_id.0).await?;
    let last = rows.last().ok_or_else(|| Problem::Missing { what: format!("incident `{}` of tenant `{tenant}`", incident_id.0) })?;
    Ok(Json(IncidentHistory { incident: last.into(), revisions: rows.iter().map(Revision::from).collect() }))
}

/// What was reported lately, each with the verdict that stands and what to do about it.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/outcomes", params(OfTenant, OutcomesQuery), responses((status = 200, body = Outcomes), Problems))]
async fn outcomes(
    State(shared): State<Shared>,
    InPath(OfTenant { tenant }): InPath<OfTenant>,
    InQuery(query): InQuery<OutcomesQuery>,
) -> Result<Json<Outcomes>, Problem> {
    let (_permit, database) = shared.store_of(&tenant).await?;
    let now = now();
    let minutes = query.minutes.map_or(60, Within::get);
    let minutes = if query.terminal.is_some() { minutes } else { minutes.min(MAX_MINUTES_OF_ALL) };
    // What was completed in this second counts too.
    let end = query.until.map_or(now, |until| until.0.min(now)).saturating_add(1);
    let wanted = Wanted {
        tenant: &tenant,
        time: end.saturating_sub(minutes * MINUTE_S)..end,
        terminal: query.terminal.as_ref().map(|terminal| terminal.0.as_str()),
        slice: &query.slice.unwrap_or_default().0,
        cause: query.cause.map(Cause::from),
        failed: query.failed.is_some_and(|failed| failed.0),
        limit: query.limit.map_or(50, Within::get),
    };
    let rows = database.reported(&wanted).await?;
    let rules = shared.rules();
    Ok(Json(Outcomes { outcomes: rows.into_iter().map(|row| Outcome::new(row, &rules)).collect() }))
}

/// Response codes that no rule set knew: what rules are still to say. `faultline rules unknown` shows the same, with rows of rules to fill in.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/unknown-codes", params(OfTenant, UnknownCodesQuery), responses((status = 200, body = UnknownCodes), Problems))]
async fn unknown_codes(
    State(shared): State<Shared>,
    InPath(OfTenant { tenant }): InPath<OfTenant>,
    InQuery(query): InQuery<UnknownCodesQuery>,
) -> Result<Json<UnknownCodes>, Problem> {
    let (_permit, database) = shared.store_of(&tenant).await?;
    let time = last_minutes(query.minutes.map_or(1440, Within::get));
    let rows = database.unknown_codes(Some(&tenant), &time, query.limit.map_or(50, Within::get)).await?;
    Ok(Json(UnknownCodes { codes: rows.iter().map(Into::into).collect() }))
}

/// How terminals stand: each with a score, what shows that it is worn, and what maintenance is to be done.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/health/terminals", params(OfTenant, TerminalsQuery), responses((status = 200, body = TerminalsHealth), Problems))]
async fn terminals_health(
    State(shared): State<Shared>,
    InPath(OfTenant { tenant }): InPath<OfTenant>,
    InQuery(query): InQuery<TerminalsQuery>,
) -> Result<Json<TerminalsHealth>, Problem> {
    let (_permit, database) = shared.store_of(&tenant).await?;
    let time = last_minutes(query.minutes.map_or(WEEK_MINUTES, Within::get));
    let of = (tenant.as_str(), query.terminal.as_ref().map(|terminal| terminal.0.as_str()));
    Ok(Json(health::terminals(database, of, &time, most(query.limit)).await?))
}

/// How shops' networks are: whether one that fails, or is slow, is worse than its carrier is nearby.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/health/shops", params(OfTenant, HealthQuery), responses((status = 200, body = ShopsHealth), Problems))]
async fn shops_health(
    State(shared): State<Shared>,
    InPath(OfTenant { tenant }): InPath<OfTenant>,
    InQuery(query): InQuery<HealthQuery>,
) -> Result<Json<ShopsHealth>, Problem> {
    let (_permit, database) = shared.store_of(&tenant).await?;
    let time = last_minutes(query.minutes.map_or(WEEK_MINUTES, Within::get));
    Ok(Json(health::shops(database, &tenant, &time, most(query.limit)).await?))
}

/// How merchants' terminals are operated: whether staff make more errors than elsewhere.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/health/merchants", params(OfTenant, HealthQuery), responses((status = 200, body = MerchantsHealth), Problems))]
async fn merchants_health(
    State(shared): State<Shared>,
    InPath(OfTenant { tenant }): InPath<OfTenant>,
    InQuery(query): InQuery<HealthQuery>,
) -> Result<Json<MerchantsHealth>, Problem> {
    let (_permit, database) = shared.store_of(&tenant).await?;
    let time = last_minutes(query.minutes.map_or(WEEK_MINUTES, Within::get));
    Ok(Json(health::merchants(database, (&tenant, &shared.rules()), &time, most(query.limit)).await?))
}

/// Who has stopped reporting: terminals, shops, carriers, regions, judged by their own hours and by each other.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/health/silent", params(OfTenant, SilentQuery), responses((status = 200, body = Silences), Problems))]
async fn silent(
    State(shared): State<Shared>,
    InPath(OfTenant { tenant }): InPath<OfTenant>,
    InQuery(query): InQuery<SilentQuery>,
) -> Result<Json<Silences>, Problem> {
    let (_permit, database) = shared.store_of(&tenant).await?;
    let time = last_minutes(query.weeks.map_or(4, Within::get) * WEEK_MINUTES);
    Ok(Json(silence::silences(database, &tenant, &time, most(query.limit)).await?))
}

/// The last so many minutes, in seconds since 1970-01-01 UTC; what happened in this second counts too.
fn last_minutes(minutes: u32) -> Range<u32> {
    let end = now().saturating_add(1);
    end.saturating_sub(minutes * MINUTE_S)..end
}

/// How many of something are shown.
fn most(limit: Option<Within<1, 200>>) -> usize {
    limit.map_or(50, |limit| usize::try_from(limit.get()).unwrap_or(usize::MAX))
}

/// Now, in seconds since 1970-01-01 UTC.
fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

async fn counted_until(database: &Database, tenant: &str, now: u32) -> Result<Option<u32>, faultline_store::StoreError> {
    Ok(database.counted(Some(tenant), now).await?.first().map(|counted| counted.until))
}

/// Until when everything is counted that was reported in time: as whoever knows has kept it (`progress`). Where nobody has, what ends ten seconds before
/// now, but not the newest ten seconds in which something was counted, which may still be filling.
fn settled(now: u32, progress: Option<u32>, counted_until: Option<u32>) -> u32 {
    let guessed = || now.saturating_sub(SETTLED_AFTER_S).min(counted_until.map_or(now, |until| until.saturating_sub(BUCKET_S)));
    let end = progress.map_or_else(guessed, |until| until.min(now));
    end - end % BUCKET_S
}

/// The steps of some minutes until a second: whole ones, as short as they may be. The last holds that second.
fn steps(minutes: u32, until: u32) -> (Range<u32>, u32) {
    let seconds = minutes * MINUTE_S;
    let step_s = STEPS_S.into_iter().find(|step| seconds.div_ceil(*step) <= MAX_STEPS).unwrap_or(LONGEST_STEP_S);
    let end = (until / step_s + 1).saturating_mul(step_s).max(seconds);
    let end = end - end % step_s;
    (end.saturating_sub(seconds.next_multiple_of(step_s))..end, step_s)
}

fn by_step(counts: &[StepCount], time: &Range<u32>, step_s: u32) -> (Vec<u64>, ByCause<Vec<u64>>) {
    let length = (time.len()) / step_s as usize;
    let mut attempts = vec![0; length];
    let mut by_cause = ByCause::of(|| vec![0; length]);
    for count in counts {
        let place = (count.begin.saturating_sub(time.start) / step_s) as usize;
        let cause = CauseName::from(count.cause());
        for list in [&mut attempts, by_cause.at(cause)] {
            if let Some(sum) = list.get_mut(place) {
                *sum += count.attempts;
            }
        }
    }
    (attempts, by_cause)
}

fn usual_by_step(usual: &UsualRates, time: &Range<u32>, step_s: u32) -> UsualSeries {
    let seconds = f64::from(step_s);
    let rates: Vec<_> = time.clone().step_by(step_s as usize).map(|begin| usual.at(begin + step_s / 2)).collect();
    UsualSeries {
        attempts: rates.iter().map(|rate| rate.map(|rate| rate.attempts * seconds)).collect(),
        approved: rates.iter().map(|rate| rate.map(|rate| rate.approved * seconds)).collect(),
    }
}

/// Which part of a whole it is; nothing of nothing.
#[expect(clippy::cast_precision_loss, reason = "a ratio that is shown")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_whole_and_hold_the_last_second() {
        for (minutes, step) in [(5, 10), (60, 10), (61, 60), (360, 60), (1440, 300), (1801, 3600), (10080, 3600)] {
            let until = 1_795_617_601;
            let (time, step_s) = steps(minutes, until);
            assert_eq!(step_s, step, "{minutes}");
            assert!(time.start % step == 0 && time.end % step == 0 && time.contains(&until), "{minutes}: {time:?}");
            assert!(time.len() / step as usize <= 361 && time.len() >= (minutes * 60) as usize, "{minutes}: {time:?}");
        }
        // The beginning and the end of what can be said.
        assert_eq!(steps(5, 0), (0..300, 10));
        assert!(!steps(10080, u32::MAX).0.is_empty());
    }

    #[test]
    fn what_is_settled_is_what_was_kept_or_what_should_be_counted() {
        assert_eq!(settled(1_000_025, Some(1_000_010), Some(999_000)), 1_000_010);
        // Nobody says.
        assert_eq!(settled(1_000_025, None, Some(1_000_030)), 1_000_010);
        assert_eq!(settled(1_000_025, None, Some(999_990)), 999_980);
        assert_eq!(settled(1_000_025, None, None), 1_000_010);
        // A clock that is ahead.
        assert_eq!(settled(1_000_025, Some(2_000_000), None), 1_000_020);
    }
}
