// One incident: what fails, whose fault it is, what shows it, how it went, and transactions that it failed.
import { useState } from "preact/hooks";
import { isRefused, paths } from "./api.ts";
import type { Counts, Explanation, Incident, IncidentWithHistory, Outcomes, Revision } from "./api.ts";
import { CauseBadge, StateBadge } from "./badge.tsx";
import { FailuresChart, VolumeChart } from "./chart.tsx";
import { Facts } from "./facts.tsx";
import type { Fact } from "./facts.tsx";
import { useFormat } from "./format.ts";
import { isMissingApprovals, lastedMs } from "./incidents.tsx";
import { useLive } from "./live.ts";
import { Loading, NotFound, Trouble, useTitle } from "./message.tsx";
import { overviewAddress, terminalAddress } from "./route.ts";
import { nameOf, placeOf, useTextOf, useWords, valueOf } from "./words.ts";

const MINUTE_MS = 60_000;
/** How much of the time before and after an incident its chart shows, beside a part of its length. */
const AROUND_MS = 20 * MINUTE_MS;
const LONGEST_MINUTES = 10_080;
/** The end of a chart that goes on moves in such steps, so that it is not another question each time. */
const GRID_MINUTES = 5;
/** How far back failed transactions of all terminals can be asked for. */
const EXAMPLES_MINUTES = 1440;
const EXAMPLES = 20;
const REVISIONS_AT_FIRST = 4;

export function IncidentView({ tenant, id }: { tenant: string; id: string }) {
  const words = useWords();
  const incident = useLive<IncidentWithHistory>(paths.incident(tenant, id));
  const { data } = incident;
  const counts = useLive<Counts>(data?.is_counted ? countsPath(tenant, data) : null);
  const outcomes = useLive<Outcomes>(data ? examplesPath(tenant, data) : null);
  useTitle(data ? placeOf(words, data.values) : words.incident.title, tenant);
  if (!data && isRefused(incident.problem)) return <NotFound text={words.trouble.noIncident(id)} tenant={tenant} />;
  const spans = data ? [{ begin: Date.parse(data.begin_time) / 1000, end: endMs(data) / 1000 }] : [];
  return (
    <>
      <nav class="back">
        <a href={overviewAddress(tenant)}>{words.frame.overview}</a>
      </nav>
      <Trouble of={[incident, counts, outcomes]} />
      {!data && !incident.problem && <Loading />}
      {data && (
        <>
          <Heading incident={data} />
          <div class="columns three">
            <div class="side">
              <Course incident={data} />
              <Evidence incident={data} />
              {data.explanation && <Explained incident={data} explanation={data.explanation} />}
            </div>
            <div class="leading">
              {!data.is_counted && <p class="panel empty">{words.incident.notCounted}</p>}
              {counts.data && <FailuresChart counts={counts.data} spans={spans} />}
              {counts.data && <VolumeChart counts={counts.data} spans={spans} />}
              {outcomes.data && <Examples tenant={tenant} incident={data} outcomes={outcomes.data} />}
            </div>
            <History revisions={data.revisions} />
          </div>
        </>
      )}
    </>
  );
}

function Heading({ incident }: { incident: Incident }) {
  const words = useWords();
  const textOf = useTextOf();
  return (
    <header class="heading">
      <h1>{placeOf(words, incident.values)}</h1>
      <p class="marks">
        <StateBadge state={incident.state} />
        <CauseBadge cause={incident.cause} />
      </p>
      <p class="lead">{textOf(incident.summary)}</p>
    </header>
  );
}

function Course({ incident }: { incident: Incident }) {
  const words = useWords();
  const format = useFormat();
  const openedAfterMs = Date.parse(incident.open_time) - Date.parse(incident.begin_time);
  const overName = incident.state === "abandoned" ? words.incident.abandoned : words.incident.closed;
  const slice = incident.values.map(
    ({ dimension, value }): Fact => [nameOf(words.dimensions, dimension), valueOf(words, dimension, value)],
  );
  const facts: Fact[] = [
    [words.incident.cause, <CauseBadge cause={incident.cause} />],
    ...(slice.length > 0 ? slice : [[words.incident.slice, words.incident.fleet] as const]),
    [words.incident.signals, incident.signals.map((signal) => nameOf(words.signals, signal)).join(" · ")],
    [words.incident.began, format.moment(incident.begin_time)],
    [
      words.incident.opened,
      <>
        {format.moment(incident.open_time)} <span class="soft">{words.incident.openedAfter(format.duration(openedAfterMs))}</span>
      </>,
    ],
    [incident.close_time === null ? words.incident.lastSeen : overName, format.moment(incident.close_time ?? incident.update_time)],
    [words.incident.duration, format.duration(lastedMs(incident))],
  ];
  return (
    <section class="panel" aria-label={words.incident.title}>
      <Facts facts={facts} />
    </section>
  );
}

function Evidence({ incident }: { incident: Incident }) {
  const words = useWords();
  const format = useFormat();
  const { attempts, counted, expected, nats } = incident.evidence;
  const facts: Fact[] = [
    [words.incident.attempts, format.count(attempts)],
    [
      isMissingApprovals(incident.signals) ? words.incident.countedApproved : words.incident.countedFailed,
      <>
        {format.count(counted)} {attempts > 0 && <span class="soft">{format.share(counted / attempts)}</span>}
      </>,
    ],
    [words.incident.expected, format.amount(expected)],
    [words.incident.ratio, expected > 0 ? `× ${format.amount(counted / expected)}` : words.none],
    [words.incident.strength, words.incident.nats(format.amount(nats))],
  ];
  return (
    <section class="panel" aria-labelledby="evidence">
      <header>
        <h2 id="evidence">{words.incident.evidence}</h2>
      </header>
      <p class="note">{words.incident.evidenceOf(nameOf(words.signals, incident.signals[0] ?? ""))}</p>
      <Facts facts={facts} />
      <p class="note">{words.incident.natsExplained}</p>
    </section>
  );
}

/** What the failures have in common, more finely than the incident's slice says, and whom they affect. */
function Explained({ incident, explanation }: { incident: Incident; explanation: Explanation }) {
  const words = useWords();
  const format = useFormat();
  const narrowed = explanation.values.filter(({ dimension }) => !incident.values.some((own) => own.dimension === dimension));
  const facts: Fact[] = [
    [words.incident.narrowed, narrowed.length > 0 ? placeOf(words, narrowed) : words.incident.nothingFiner],
    [words.incident.contribution, format.share(explanation.contribution)],
    [words.incident.risk, explanation.relative_risk === null ? words.none : `× ${format.amount(explanation.relative_risk)}`],
    [words.incident.merchants, format.count(explanation.merchants)],
    [words.incident.terminals, format.count(explanation.terminals)],
    [words.incident.transactions, format.count(explanation.transactions)],
    [words.incident.money, explanation.amounts.map(({ currency, minor }) => format.money(minor, currency)).join(" · ")],
    [words.incident.strength, words.incident.nats(format.amount(explanation.score_nats))],
  ];
  return (
    <section class="panel" aria-labelledby="explained">
      <header>
        <h2 id="explained">{words.incident.explained}</h2>
      </header>
      <p class="note">{words.incident.explainedOf(format.moment(explanation.from_time), format.moment(explanation.until_time))}</p>
      <Facts facts={facts} />
      {explanation.parts.length > 0 && (
        <>
          <p class="note">{words.incident.parts}</p>
          <Facts
            facts={explanation.parts.map(({ values, attempts, failed }): Fact => [
              placeOf(words, values),
              words.incident.partFails(format.count(failed), format.count(attempts)),
            ])}
          />
        </>
      )}
      {explanation.alternatives.length > 0 && (
        <>
          <p class="note">{words.incident.alternatives}</p>
          <Facts
            facts={explanation.alternatives.map(({ values, score_nats }): Fact => [
              placeOf(words, values),
              words.incident.nats(format.amount(score_nats)),
            ])}
          />
        </>
      )}
    </section>
  );
}

function Examples({ tenant, incident, outcomes }: { tenant: string; incident: Incident; outcomes: Outcomes }) {
  const words = useWords();
  const format = useFormat();
  const textOf = useTextOf();
  const ofCause = words.incident.examplesOf(nameOf(words.causes, incident.cause));
  const during = outcomes.outcomes.filter(({ completed_at }) => Date.parse(completed_at) >= Date.parse(incident.begin_time));
  return (
    <section class="panel" aria-labelledby="examples">
      <header>
        <h2 id="examples">{words.incident.examples}</h2>
        <p class="unit">{isMissingApprovals(incident.signals) ? words.incident.examplesAny : ofCause}</p>
      </header>
      {during.length === 0 ? (
        <p class="empty">{words.incident.noExamples}</p>
      ) : (
        <div class="scroll" role="group" aria-labelledby="examples" tabIndex={0}>
          <table>
            <thead>
              <tr>
                <th scope="col">{words.terminal.time}</th>
                <th scope="col">{words.terminal.terminal}</th>
                <th scope="col" class="right">
                  {words.terminal.amount}
                </th>
                <th scope="col" class="minor">
                  {words.terminal.stage}
                </th>
                <th scope="col" class="minor">
                  {words.terminal.code}
                </th>
                <th scope="col">{words.terminal.meaning}</th>
              </tr>
            </thead>
            <tbody>
              {during.map((outcome) => (
                <tr key={`${outcome.terminal}/${outcome.spool}/${outcome.sequence}`}>
                  <td class="number">{format.moment(outcome.completed_at)}</td>
                  <td>
                    <a href={terminalAddress(tenant, outcome.terminal)}>{outcome.terminal}</a>
                  </td>
                  <td class="number right">{format.money(outcome.amount_minor, outcome.currency) || words.none}</td>
                  <td class="minor">{nameOf(words.stages, outcome.stage)}</td>
                  <td class="minor number">{outcome.response_code || words.none}</td>
                  <td>{outcome.verdict.advice ? textOf(outcome.verdict.advice.meaning) : outcome.verdict.reason}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

function History({ revisions }: { revisions: readonly Revision[] }) {
  const words = useWords();
  const format = useFormat();
  const textOf = useTextOf();
  const [showsAll, setShowsAll] = useState(false);
  const newestFirst = revisions.toReversed();
  const shown = showsAll ? newestFirst : newestFirst.slice(0, REVISIONS_AT_FIRST);
  return (
    <section class="panel history" aria-labelledby="history">
      <header>
        <h2 id="history">{words.incident.history}</h2>
      </header>
      <ol>
        {shown.map((revision) => (
          <li key={revision.revision}>
            <p class="marks">
              <span class="number">{format.moment(revision.update_time)}</span>
              <StateBadge state={revision.state} />
              <span class="soft number">
                {words.incident.revision} {revision.revision}
              </span>
            </p>
            <p>{textOf(revision.summary)}</p>
          </li>
        ))}
      </ol>
      {shown.length < revisions.length && (
        <button type="button" class="more" onClick={() => { setShowsAll(true); }}>
          {words.incident.showAll(revisions.length)}
        </button>
      )}
    </section>
  );
}

function endMs(incident: Incident): number {
  // Whatever the browser's clock says, it is not earlier than what was counted.
  return incident.close_time === null ? Math.max(Date.now(), Date.parse(incident.update_time)) : Date.parse(incident.close_time);
}

function countsPath(tenant: string, incident: Incident): string {
  const beginMs = Date.parse(incident.begin_time);
  const aroundMs = AROUND_MS + (endMs(incident) - beginMs) / 4;
  const untilMs = endMs(incident) + aroundMs;
  const isPast = untilMs < Date.now();
  const minutes = Math.min(minutesUntil(isPast ? untilMs : endMs(incident), beginMs - aroundMs), LONGEST_MINUTES);
  return paths.counts(tenant, { minutes, slice: incident.slice, until: isPast ? new Date(untilMs).toISOString() : undefined });
}

function examplesPath(tenant: string, incident: Incident): string {
  return paths.outcomes(tenant, {
    ...(incident.values.length > 0 && { slice: incident.slice }),
    cause: isMissingApprovals(incident.signals) ? undefined : incident.cause,
    failed: "true",
    minutes: Math.min(minutesUntil(endMs(incident), Date.parse(incident.begin_time)), EXAMPLES_MINUTES),
    until: incident.close_time ?? undefined,
    limit: EXAMPLES,
  });
}

function minutesUntil(untilMs: number, beginMs: number): number {
  return Math.ceil((untilMs - beginMs) / MINUTE_MS / GRID_MINUTES) * GRID_MINUTES;
}
