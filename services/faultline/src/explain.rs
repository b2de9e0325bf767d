//! `faultline explain`: why there is an incident: the numbers that led to it, whom it affects, and the query that shows them.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Args;
use faultline_proto::verdict::v1::Cause;
use faultline_store::{Affected, Database, Explained, Finding, Findings, IncidentRow, Meanwhile, Slice};
use serde::Serialize;

use crate::answer;
use crate::columns::{self, Column, line};
use crate::config::Config;

/// What an incident is called whose approvals are missing.
const MISSING_APPROVALS: &str = "missing_approvals";

/// Which incident.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Identifier of the incident, as notices and the console have it: 20261129T221040Z-1f3a90c2
    incident: String,
    /// Whose it is, where several have one of that identifier
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Why there is an incident.
#[derive(Debug, Serialize)]
struct Explanation {
    tenant: String,
    incident: String,
    slice: String,
    state: String,
    cause: String,
    summary: Summary,
    /// What opened it, and what was seen besides, by class of failures.
    signals: Vec<String>,
    begin_time: String,
    open_time: String,
    /// Absent while it goes on.
    close_time: Option<String>,
    /// The numbers that led to it and the finest slice that explains it, as the incident carries them.
    #[serde(flatten)]
    findings: Findings,
    /// Over its whole time, as far as is known now.
    numbers: Numbers,
    affected: AffectedParts,
    revisions: Vec<Step>,
    /// Shows the numbers.
    query: String,
}

#[derive(Debug, Serialize)]
struct Summary {
    zh_cn: String,
    en: String,
}

/// The numbers of what opened it, over its whole time.
#[derive(Debug, Serialize)]
struct Numbers {
    attempts: u64,
    /// Failures; approvals, where these are missing.
    counted: u64,
    /// How many would be usual.
    expected: f64,
    /// How much likelier what opened it is under a fault than without one: the logarithm of the ratio.
    evidence_nats: f64,
    /// How many times more failures there are than at the rate of the rest of the fleet meanwhile; absent where there is no rest, or nothing fails in it.
    relative_risk: Option<f64>,
    /// The share of the fleet's failures of this kind, meanwhile, that are in its slice.
    contribution: Option<f64>,
}

#[derive(Debug, Serialize)]
struct AffectedParts {
    failed_attempts: u64,
    merchants: u64,
    terminals: u64,
    transactions: u64,
    amounts: Vec<Amount>,
}

#[derive(Debug, Serialize)]
struct Amount {
    currency: String,
    minor: i64,
}

/// A revision that changed something.
#[derive(Debug, Serialize)]
struct Step {
    revision: u32,
    time: String,
    state: String,
    slice: String,
    attempts: u64,
    counted: u64,
    expected: f64,
}

const STEPS: [Column<Step>; 7] = [
    ("REVISION", |step| step.revision.to_string()),
    ("TIME", |step| step.time.clone()),
    ("STATE", |step| step.state.clone()),
    ("ATTEMPTS", |step| step.attempts.to_string()),
    ("COUNTED", |step| step.counted.to_string()),
    ("USUAL", |step| format!("{:.1}", step.expected)),
    ("SLICE", |step| step.slice.clone()),
];

pub(crate) async fn run(config: &Config, options: &Options) -> anyhow::Result<()> {
    let database = Database::new(&config.clickhouse)?;
    let tenant = match &options.tenant {
        Some(tenant) => tenant.clone(),
        None => whose(&database, &options.incident).await?,
    };
    let revisions = database.revisions(&tenant, &options.incident).await?;
    let last = revisions.last().with_context(|| format!("tenant `{tenant}` has no incident `{}`", options.incident))?;
    let slice: Slice = last.slice.parse().with_context(|| format!("slice `{}`", last.slice))?;
    let failures = last.signals.first().map(String::as_str).filter(|signal| *signal != MISSING_APPROVALS);
    let until = if last.is_closed() { last.closed } else { last.updated };
    let explained = Explained { tenant: &tenant, slice: &slice, failures, time: last.began..until.max(last.began + 1) };
    let fleet = Explained { slice: &Slice::default(), ..explained.clone() };
    let (affected, inside, fleet) =
        tokio::try_join!(database.affected(&explained), database.meanwhile(&explained), database.meanwhile(&fleet))?;
    let explanation = Explanation::new(&revisions, last, (&affected, inside, fleet), explained.query());
    if options.json {
        return answer(&format!("{}\n", serde_json::to_string_pretty(&explanation)?));
    }
    answer(&explanation.text())
}

/// The tenant that has an incident, if it is one.
async fn whose(database: &Database, incident: &str) -> anyhow::Result<String> {
    let mut tenants = database.tenants_with(incident).await?;
    if tenants.len() > 1 {
        bail!("several tenants have an incident `{incident}`: say with --tenant which is meant, of {}", tenants.join(", "));
    }
    tenants.pop().with_context(|| format!("there is no incident `{incident}`"))
}

impl Explanation {
    fn new(
        revisions: &[IncidentRow],
        last: &IncidentRow,
        (affected, own, fleet): (&Affected, Meanwhile, Meanwhile),
        query: String,
    ) -> Explanation {
        let outside = ratio(fleet.failed.saturating_sub(own.failed), fleet.attempts.saturating_sub(own.attempts));
        let inside = ratio(own.failed, own.attempts);
        Explanation {
            tenant: last.tenant.clone(),
            incident: last.incident.clone(),
            slice: last.slice.clone(),
            state: state(last),
            cause: cause(last.cause()),
            summary: Summary { zh_cn: last.summary_zh_cn.clone(), en: last.summary_en.clone() },
            signals: last.signals.clone(),
            begin_time: time(last.began),
            open_time: time(last.opened),
            close_time: last.is_closed().then(|| time(last.closed)),
            findings: last.findings(),
            numbers: Numbers {
                attempts: last.attempts,
                counted: last.counted,
                expected: last.expected,
                evidence_nats: last.evidence,
                relative_risk: inside.zip(outside).map(|(inside, outside)| inside / outside).filter(|risk| risk.is_finite()),
                contribution: ratio(own.failed, fleet.failed),
            },
            affected: AffectedParts {
                failed_attempts: affected.failed,
                merchants: affected.merchants,
                terminals: affected.terminals,
                transactions: affected.transactions,
                amounts: affected.amounts.iter().map(|(currency, minor)| Amount { currency: currency.clone(), minor: *minor }).collect(),
            },
            revisions: steps(revisions),
            query,
        }
    }

    fn text(&self) -> String {
        let Numbers { attempts, counted, expected, evidence_nats, relative_risk, contribution } = &self.numbers;
        let signal = self.signals.first().map_or("", String::as_str);
        let what = if signal == MISSING_APPROVALS {
            format!("{counted} approvals of {attempts} attempts, where {expected:.1} approvals are usual")
        } else {
            format!("{counted} of {attempts} attempts, where {expected:.1} are usual")
        };
        let until = self.close_time.as_ref().map_or_else(|| "goes on".into(), |close| format!("over by {close}"));
        let mut said = format!(
            "{} of {}: {}, cause {}, {}\n{}\n{}\n\nbegan {}, convinced at {}, {until}\n\n{}\nSince it began, {}: {what}\nevidence: {evidence_nats:.0} nats: so much likelier, as a logarithm, \
             is what opened it with a fault than without\n",
            self.incident,
            self.tenant,
            line(&self.slice),
            self.cause,
            self.state,
            line(&self.summary.en),
            line(&self.summary.zh_cn),
            self.begin_time,
            self.open_time,
            self.carried(),
            line(signal),
        );
        if let Some(contribution) = contribution {
            said.push_str(&format!("{:.1} % of the fleet's failures of this kind meanwhile are here\n", 100.0 * contribution));
        }
        if let Some(risk) = relative_risk {
            said.push_str(&format!("an attempt here failed so {risk:.1} times as often as elsewhere\n"));
        }
        if let [_, others @ ..] = self.signals.as_slice()
            && !others.is_empty()
        {
            said.push_str(&format!("also seen: {}\n", line(&others.join(", "))));
        }
        let AffectedParts { failed_attempts, merchants, terminals, transactions, amounts } = &self.affected;
        let amounts = money(amounts.iter().map(|of| (of.currency.as_str(), of.minor)));
        said.push_str(&format!(
            "affected since then: {failed_attempts} attempts at {transactions} transactions, at {terminals} terminals of {merchants} merchants{amounts}\n\n"
        ));
        said.push_str(&columns::table(&STEPS, &self.revisions.iter().collect::<Vec<_>>()));
        said.push_str(&format!("\nTo see it in ClickHouse:\n\n{}\n", self.query));
        said
    }
}

impl Explanation {
    /// What the incident carries: the numbers that opened it, and the finest slice that explains it.
    fn carried(&self) -> String {
        let mut said = String::new();
        if let Some(opening) = &self.findings.opening {
            let seconds = opening.until.saturating_sub(opening.from);
            said.push_str(&format!(
                "Opened by {} of {} attempts in {seconds} s, where {:.1} are usual\n",
                opening.counted, opening.attempts, opening.expected
            ));
        }
        if let Some(finding) = &self.findings.explanation {
            said.push_str(&told(finding, &self.slice));
        }
        said
    }
}

/// What explains an incident of a slice, in lines.
fn told(finding: &Finding, incident: &str) -> String {
    let finer = if finding.slice == incident { "rows say nothing finer than" } else { "explained more finely by" };
    let about = if finding.sampled_one_in > 1 { "about " } else { "" };
    let mut said = format!(
        "From {} to {}, {finer} {} ({:.0} nats)\n  {} of {about}{} attempts there failed so: {:.1} % of the fleet's failures of this kind",
        time(finding.from),
        time(finding.until),
        line(&finding.slice),
        finding.score_nats,
        finding.failed,
        finding.attempts,
        100.0 * finding.contribution,
    );
    said.push_str(&finding.relative_risk.map_or_else(|| "\n".into(), |risk| format!(", {risk:.1} times as often as elsewhere\n")));
    let amounts = money(finding.amounts.iter().map(|money| (money.currency.as_str(), money.minor)));
    said.push_str(&format!(
        "  affected: {} transactions at {} terminals of {} merchants{amounts}\n",
        finding.transactions, finding.terminals, finding.merchants
    ));
    for part in &finding.parts {
        said.push_str(&format!(
            "  fails for itself: {}, {} of {about}{} attempts ({:.0} nats)\n",
            line(&part.slice),
            part.failed,
            part.attempts,
            part.score_nats
        ));
    }
    for other in &finding.alternatives {
        said.push_str(&format!("  may be {} instead ({:.0} nats)\n", line(&other.slice), other.score_nats));
    }
    if finding.slice != incident {
        said.push_str(&format!("  To see it in ClickHouse:\n\n{}\n", finding.query));
    }
    said
}

/// Amounts by currency, behind something else.
fn money<'a>(amounts: impl Iterator<Item = (&'a str, i64)>) -> String {
    let amounts: Vec<String> = amounts.map(|(currency, minor)| format!("{} {minor} in its smallest unit", line(currency))).collect();
    if amounts.is_empty() { String::new() } else { format!("; {}", amounts.join(", ")) }
}

/// The revisions that changed more than the counts, and the last.
fn steps(revisions: &[IncidentRow]) -> Vec<Step> {
    let is_like =
        |one: &IncidentRow, other: &IncidentRow| (one.state, &one.slice, &one.signals) == (other.state, &other.slice, &other.signals);
    let is_wanted = |place: usize, row: &IncidentRow| {
        let before = place.checked_sub(1).and_then(|before| revisions.get(before));
        place + 1 == revisions.len() || !before.is_some_and(|before| is_like(before, row))
    };
    let wanted = revisions.iter().enumerate().filter(|(place, row)| is_wanted(*place, row));
    wanted
        .map(|(_, row)| Step {
            revision: row.revision,
            time: time(row.updated),
            state: state(row),
            slice: row.slice.clone(),
            attempts: row.attempts,
            counted: row.counted,
            expected: row.expected,
        })
        .collect()
}

fn state(row: &IncidentRow) -> String {
    row.state().as_str_name().trim_start_matches("INCIDENT_STATE_").to_lowercase()
}

fn cause(cause: Cause) -> String {
    cause.as_str_name().trim_start_matches("CAUSE_").to_lowercase()
}

fn time(second: u32) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(second.into())).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "counts that are shown")]
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use faultline_proto::incident::v1::IncidentState;
    use faultline_store::{Alternative, Opening, Part};

    use super::*;

    fn row(revision: u32, (state, slice): (IncidentState, &str), counted: u64) -> IncidentRow {
        let number = |number: i32| i8::try_from(number).unwrap();
        IncidentRow {
            tenant: "acme".into(),
            incident: "20261120T020020Z-1f3a90c2".into(),
            revision,
            state: number(state.into()),
            cause: number(Cause::Bank.into()),
            slice: slice.into(),
            signals: vec!["issuer_down".into(), "missing_approvals".into()],
            attempts: counted + 10,
            counted,
            expected: 0.25,
            evidence: 41.3,
            began: 1_795_140_000,
            opened: 1_795_140_020,
            updated: 1_795_140_020 + revision,
            closed: if state == IncidentState::Closed { 1_795_140_600 } else { 0 },
            summary_zh_cn: "发卡行 icbc".into(),
            summary_en: "issuer icbc: down".into(),
            findings: String::new(),
        }
    }

    #[test]
    fn an_incident_is_explained_by_its_numbers() {
        let open = IncidentState::Open;
        let revisions = [
            row(1, (open, "entry_mode=chip&issuer=icbc"), 5),
            row(2, (open, "issuer=icbc"), 9),
            row(3, (open, "issuer=icbc"), 40),
            row(4, (IncidentState::Closed, "issuer=icbc"), 90),
        ];
        let affected = Affected { failed: 90, merchants: 7, terminals: 8, transactions: 80, amounts: vec![("CNY".into(), 12_345)] };
        let [inside, fleet] = [(100, 90), (1100, 100)].map(|(attempts, failed)| Meanwhile { attempts, failed });
        let said = Explanation::new(&revisions, &revisions[3], (&affected, inside, fleet), "SELECT 1".into()).text();
        for part in [
            "20261120T020020Z-1f3a90c2 of acme: issuer=icbc, cause bank, closed\n",
            "began 2026-11-20T02:00:00Z, convinced at 2026-11-20T02:00:20Z, over by 2026-11-20T02:10:00Z",
            "issuer_down: 90 of 100 attempts, where 0.2 are usual",
            "41 nats",
            "90.0 % of the fleet's failures",
            "90.0 times as often as elsewhere",
            "also seen: missing_approvals",
            "affected since then: 90 attempts at 80 transactions, at 8 terminals of 7 merchants; CNY 12345 in its smallest unit",
            "To see it in ClickHouse:\n\nSELECT 1",
        ] {
            assert!(said.contains(part), "{part}\n{said}");
        }
        // The third revision only brought the counts up to date.
        let steps: Vec<u32> = steps(&revisions).iter().map(|step| step.revision).collect();
        assert_eq!(steps, [1, 2, 4]);
    }

    #[test]
    fn without_a_rest_of_the_fleet_nothing_is_compared() {
        let revisions = [row(1, (IncidentState::Open, "fleet"), 5)];
        let (affected, all) = (Affected { failed: 90, ..Affected::default() }, Meanwhile { attempts: 100, failed: 90 });
        let explanation = Explanation::new(&revisions, &revisions[0], (&affected, all, all), String::new());
        assert_eq!((explanation.numbers.relative_risk, explanation.numbers.contribution), (None, Some(1.0)));
        assert!(explanation.text().contains("goes on"));
    }

    #[test]
    fn what_the_incident_carries_is_said_first() {
        let opening = Opening { from: 1_795_140_000, until: 1_795_140_020, attempts: 15, counted: 5, expected: 0.1, evidence_nats: 20.0 };
        let finding = Finding {
            from: 1_795_140_000,
            until: 1_795_140_120,
            slice: "carrier=46000&issuer=icbc".into(),
            score_nats: 80.4,
            contribution: 0.905,
            relative_risk: Some(52.5),
            alternatives: vec![Alternative { slice: "issuer=icbc".into(), score_nats: 31.0 }],
            parts: vec![Part { slice: "issuer=icbc&region=310000".into(), score_nats: 22.0, attempts: 40, failed: 38 }],
            attempts: 210,
            failed: 190,
            transactions: 150,
            sampled_one_in: 8,
            query: "SELECT 2".into(),
            ..Finding::default()
        };
        let findings = Findings { opening: Some(opening), explanation: Some(finding) };
        let last = IncidentRow { findings: findings.json(), ..row(1, (IncidentState::Open, "issuer=icbc"), 5) };
        let said = Explanation::new(&[], &last, (&Affected::default(), Meanwhile::default(), Meanwhile::default()), String::new()).text();
        for part in [
            "Opened by 5 of 15 attempts in 20 s, where 0.1 are usual",
            "From 2026-11-20T02:00:00Z to 2026-11-20T02:02:00Z, explained more finely by carrier=46000&issuer=icbc (80 nats)",
            "190 of about 210 attempts there failed so: 90.5 % of the fleet's failures of this kind, 52.5 times as often as elsewhere",
            "affected: 150 transactions at 0 terminals of 0 merchants",
            "fails for itself: issuer=icbc&region=310000, 38 of about 40 attempts (22 nats)",
            "may be issuer=icbc instead (31 nats)",
            "SELECT 2",
        ] {
            assert!(said.contains(part), "{part}\n{said}");
        }
    }
}
