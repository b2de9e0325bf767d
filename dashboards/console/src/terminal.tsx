// One terminal: what it is, and how its transactions ended lately.
import { CAUSES, isRefused, paths } from "./api.ts";
import type { Cause, Outcome, Outcomes } from "./api.ts";
import { CauseBadge, CauseShares } from "./badge.tsx";
import { Facts } from "./facts.tsx";
import type { Fact } from "./facts.tsx";
import { useFormat } from "./format.ts";
import { useLive } from "./live.ts";
import { Loading, NotFound, Trouble, useTitle } from "./message.tsx";
import { PeriodChoice } from "./period.tsx";
import { overviewAddress, TERMINAL_PERIODS, terminalAddress } from "./route.ts";
import { TransactionTable } from "./transactions.tsx";
import { useWords } from "./words.ts";

const LIMIT = 100;

export function TerminalView({ tenant, terminal, minutes }: { tenant: string; terminal: string; minutes: number }) {
  const words = useWords();
  const live = useLive<Outcomes>(paths.outcomes(tenant, { terminal, minutes, limit: LIMIT }));
  const outcomes = live.data?.outcomes;
  const newest = outcomes?.[0];
  useTitle(`${words.terminal.title} ${terminal}`, tenant);
  if (!live.data && isRefused(live.problem)) return <NotFound text={words.terminal.unknown(terminal)} tenant={tenant} />;
  return (
    <>
      <nav class="back">
        <a href={overviewAddress(tenant)}>{words.frame.overview}</a>
      </nav>
      <Trouble of={[live]} />
      <header class="heading with-tools">
        <h1>
          {words.terminal.title} {terminal}
        </h1>
        <PeriodChoice minutes={minutes} periods={TERMINAL_PERIODS} address={(period) => terminalAddress(tenant, terminal, period)} />
      </header>
      {!outcomes && !live.problem && <Loading />}
      {outcomes && !newest && <p class="panel empty">{words.terminal.unknown(terminal)}</p>}
      {outcomes && newest && (
        <div class="stack" aria-busy={!live.isCurrent}>
          <div class="columns even">
            <About newest={newest} />
            <Causes outcomes={outcomes} />
          </div>
          <TransactionTable outcomes={outcomes} />
        </div>
      )}
    </>
  );
}

function About({ newest }: { newest: Outcome }) {
  const words = useWords();
  const facts: Fact[] = [
    [words.terminal.merchant, newest.merchant],
    [words.terminal.store, newest.store],
    [words.terminal.model, newest.model],
    [words.terminal.firmware, newest.firmware],
    [words.terminal.carrier, newest.carrier],
    [words.terminal.region, newest.region],
    [words.terminal.acquirer, newest.acquirer],
  ];
  return (
    <section class="panel" aria-label={words.terminal.title}>
      <Facts facts={facts} />
    </section>
  );
}

function Causes({ outcomes }: { outcomes: readonly Outcome[] }) {
  const words = useWords();
  const format = useFormat();
  const counts = Object.fromEntries(CAUSES.map((cause) => [cause, 0])) as Record<Cause, number>;
  const listed = format.count(outcomes.length);
  for (const { verdict } of outcomes) counts[verdict.cause] += 1;
  return (
    <section class="panel" aria-labelledby="causes">
      <header>
        <h2 id="causes">{words.terminal.causes}</h2>
        <p class="unit number">{outcomes.length === LIMIT ? words.terminal.mostListed(listed) : words.terminal.causesOf(listed)}</p>
      </header>
      <p class="approved">
        <CauseBadge cause="approved" /> <span class="number">{format.count(counts.approved)}</span>
        <span class="number soft">{format.share(counts.approved / outcomes.length)}</span>
      </p>
      <CauseShares counts={counts} attempts={outcomes.length} />
    </section>
  );
}
