// A terminal's transactions in a table, each of which unfolds into the verdict, the advice and everything that the terminal measured.
import { Fragment } from "preact";
import { useState } from "preact/hooks";
import type { Outcome } from "./api.ts";
import { CauseBadge } from "./badge.tsx";
import { Facts } from "./facts.tsx";
import type { Fact } from "./facts.tsx";
import { useFormat } from "./format.ts";
import { nameOf, useTextOf, useWords } from "./words.ts";
import type { Words } from "./words.ts";

const COLUMNS = 9;

export function TransactionTable({ outcomes }: { outcomes: readonly Outcome[] }) {
  const words = useWords();
  const [unfolded, setUnfolded] = useState<ReadonlySet<string>>(new Set());
  const toggle = (key: string) => {
    setUnfolded((before) => (before.has(key) ? new Set([...before].filter((one) => one !== key)) : new Set([...before, key])));
  };
  return (
    <section class="panel" aria-labelledby="transactions">
      <header>
        <h2 id="transactions">{words.terminal.transactions}</h2>
      </header>
      <div class="scroll" role="group" aria-labelledby="transactions" tabIndex={0}>
        <table>
          <thead>
            <tr>
              <th scope="col">{words.terminal.time}</th>
              <th scope="col">{words.terminal.result}</th>
              <th scope="col" class="minor">
                {words.terminal.type}
              </th>
              <th scope="col" class="minor">
                {words.terminal.entryMode}
              </th>
              <th scope="col" class="right">
                {words.terminal.amount}
              </th>
              <th scope="col" class="minor">
                {words.terminal.issuer}
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
            {outcomes.map((outcome) => {
              const key = `${outcome.spool}-${outcome.sequence}`;
              const isUnfolded = unfolded.has(key);
              return (
                <Fragment key={key}>
                  <Row outcome={outcome} detailsId={`details-${key}`} isUnfolded={isUnfolded} onToggle={() => { toggle(key); }} />
                  {isUnfolded && (
                    <tr class="details" id={`details-${key}`}>
                      <td colSpan={COLUMNS}>
                        <Details outcome={outcome} />
                      </td>
                    </tr>
                  )}
                </Fragment>
              );
            })}
          </tbody>
        </table>
      </div>
    </section>
  );
}

interface RowProps {
  readonly outcome: Outcome;
  readonly detailsId: string;
  readonly isUnfolded: boolean;
  readonly onToggle: () => void;
}

function Row({ outcome, detailsId, isUnfolded, onToggle }: RowProps) {
  const words = useWords();
  const format = useFormat();
  const time = format.moment(outcome.completed_at);
  return (
    <tr class={isUnfolded ? "unfolded" : ""}>
      <td class="number">
        <button
          type="button"
          class="fold"
          aria-expanded={isUnfolded}
          aria-controls={isUnfolded ? detailsId : undefined}
          aria-label={`${time}: ${words.terminal.details}`}
          onClick={onToggle}
        >
          {time}
        </button>
      </td>
      <td>
        <CauseBadge cause={outcome.verdict.cause} />
      </td>
      <td class="minor">{nameOf(words.types, outcome.type)}</td>
      <td class="minor">{nameOf(words.entryModes, outcome.entry_mode) || words.none}</td>
      <td class="number right">{format.money(outcome.amount_minor, outcome.currency) || words.none}</td>
      <td class="minor">{outcome.issuer || words.none}</td>
      <td class="minor">{nameOf(words.stages, outcome.stage)}</td>
      <td class="minor number">{outcome.response_code || words.none}</td>
      <td>
        <Meaning outcome={outcome} />
      </td>
    </tr>
  );
}

function Meaning({ outcome }: { outcome: Outcome }) {
  const textOf = useTextOf();
  return <>{outcome.verdict.advice ? textOf(outcome.verdict.advice.meaning) : outcome.verdict.reason}</>;
}

function Details({ outcome }: { outcome: Outcome }) {
  const words = useWords();
  const format = useFormat();
  const { verdict } = outcome;
  const milliseconds = (ms: number) => `${format.count(ms)} ms`;
  const verdictFacts: Fact[] = [
    [words.terminal.reason, verdict.reason],
    [words.terminal.tag, verdict.tag],
    [words.terminal.confidence, format.roundShare(verdict.confidence / 100)],
    [words.terminal.ruleSet, verdict.rule_set],
    [words.terminal.corrected, verdict.revision > 0 ? words.terminal.correctedTimes(verdict.revision) : ""],
  ];
  const transactionFacts: Fact[] = [
    [words.terminal.type, nameOf(words.types, outcome.type)],
    [words.terminal.entryMode, nameOf(words.entryModes, outcome.entry_mode)],
    [words.terminal.issuer, outcome.issuer],
    [words.terminal.host, outcome.host],
    [words.terminal.stage, nameOf(words.stages, outcome.stage)],
    [words.terminal.code, [outcome.response_code, outcome.response_spec].filter(Boolean).join(" · ")],
    [words.terminal.money, nameOf(words.money, outcome.money_outcome)],
    [words.terminal.attempt, outcome.attempt > 0 ? format.count(outcome.attempt) : ""],
    [words.terminal.sequence, outcome.sequence],
    [words.terminal.received, format.moment(outcome.received_at)],
  ];
  const terminalFacts: Fact[] = [
    [words.terminal.condition, nameOf(words.conditions, outcome.terminal_condition)],
    [words.terminal.errorCode, outcome.terminal_error_code],
    [words.terminal.diagnostic, outcome.diagnostic],
    [words.terminal.model, outcome.model],
    [words.terminal.firmware, outcome.firmware],
    [words.terminal.carrier, outcome.carrier],
    [words.terminal.network, nameOf(words.accessNetworks, outcome.access_network)],
    [words.terminal.signal, outcome.signal_dbm === null ? "" : `${outcome.signal_dbm} dBm`],
  ];
  const latencies: Fact[] = [
    ...inOrderOfStages(words, outcome.latencies_ms).map(([stage, ms]): Fact => [nameOf(words.stages, stage), milliseconds(ms)]),
    [words.terminal.total, outcome.total_ms > 0 ? milliseconds(outcome.total_ms) : ""],
  ];
  return (
    <div class="unfolding">
      <Advice outcome={outcome} words={words} />
      <Group title={words.terminal.verdict} facts={verdictFacts} />
      <Group title={words.terminal.transaction} facts={transactionFacts} />
      <Group title={words.terminal.terminal} facts={terminalFacts} />
      <Group title={words.terminal.latencies} facts={latencies} />
    </div>
  );
}

function Advice({ outcome, words }: { outcome: Outcome; words: Words }) {
  const textOf = useTextOf();
  const { advice } = outcome.verdict;
  return (
    <section class="advice">
      <h3>{words.terminal.advice}</h3>
      {advice ? (
        <dl>
          <dt>{words.terminal.retry}</dt>
          <dd class="retry">{advice.retry_minutes === null ? nameOf(words.retries, advice.retry) : words.retryIn(advice.retry_minutes)}</dd>
          <dt>{words.terminal.cashier}</dt>
          <dd>{textOf(advice.cashier)}</dd>
          <dt>{words.terminal.serviceDesk}</dt>
          <dd>{textOf(advice.service_desk)}</dd>
        </dl>
      ) : (
        <p class="soft">{words.terminal.noAdvice}</p>
      )}
    </section>
  );
}

/** As a transaction goes through them; stages that are not known here come first. */
function inOrderOfStages(words: Words, latencies: Record<string, number>): [stage: string, ms: number][] {
  const order = Object.keys(words.stages);
  return Object.entries(latencies).sort(([one], [other]) => order.indexOf(one) - order.indexOf(other));
}

function Group({ title, facts }: { title: string; facts: readonly Fact[] }) {
  return (
    <section>
      <h3>{title}</h3>
      <Facts facts={facts} />
    </section>
  );
}
