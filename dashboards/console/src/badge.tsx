// Marks that are the same everywhere: whose fault something is, how an incident stands, and how much of something there is.
import { FAILURE_CAUSES } from "./api.ts";
import type { Cause, IncidentState } from "./api.ts";
import { useFormat } from "./format.ts";
import { nameOf, useWords } from "./words.ts";

export function CauseBadge({ cause }: { cause: Cause }) {
  const words = useWords();
  return (
    <span class="badge">
      <span class="swatch" style={{ color: `var(--${cause})` }} />
      {nameOf(words.causes, cause)}
    </span>
  );
}

export function StateBadge({ state }: { state: IncidentState }) {
  const words = useWords();
  return (
    <span class={`badge state ${state}`} title={nameOf(words.stateMeanings, state)}>
      {nameOf(words.states, state)}
    </span>
  );
}

/** How many failed by each cause, and what share of `attempts` that is. */
export function CauseShares({ counts, attempts }: { counts: Record<Cause, number>; attempts: number }) {
  const words = useWords();
  const format = useFormat();
  return (
    <ul class="shares">
      {FAILURE_CAUSES.map((cause) => (
        <li key={cause} class={counts[cause] === 0 ? "zero" : ""}>
          <CauseBadge cause={cause} />
          <span class="number">{format.count(counts[cause])}</span>
          <span class="number soft">{attempts === 0 ? words.none : format.share(counts[cause] / attempts)}</span>
        </li>
      ))}
    </ul>
  );
}
