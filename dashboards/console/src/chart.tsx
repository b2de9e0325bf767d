// The two charts of counts over time: failures by whose fault they are, and volume against what is usual.
import { useMemo, useState } from "preact/hooks";
import { FAILURE_CAUSES } from "./api.ts";
import type { Counts } from "./api.ts";
import { useFormat } from "./format.ts";
import { Plot } from "./plot.tsx";
import type { Line, Span } from "./plot.tsx";
import { useWords } from "./words.ts";

interface Props {
  readonly counts: Counts;
  readonly spans?: readonly Span[];
}

type Measure = "share" | "count";

const NO_SPANS: readonly Span[] = [];
/** Both charts of a view show the same time when one of them is pointed at. */
const GROUP = "counts";
/** The share of failures that the axis reaches at least. */
const LEAST_SHARE = 0.1;

export function FailuresChart({ counts, spans = NO_SPANS }: Props) {
  const words = useWords();
  const format = useFormat();
  const [measure, setMeasure] = useState<Measure>("share");
  const steps = useMemo(() => stepsOf(counts), [counts]);
  const lines = useMemo(
    () =>
      FAILURE_CAUSES.map((cause) => {
        const values = measured(counts, steps, counts.by_cause[cause], measure);
        return { colour: `--${cause}`, values };
      }),
    [counts, steps, measure],
  );
  const text = measure === "share" ? format.share : format.amount;
  return (
    <section class="panel chart" aria-labelledby="failures-chart">
      <header>
        <h2 id="failures-chart">{words.chart.failures}</h2>
        <p class="unit">{measure === "share" ? words.chart.shareOfAttempts : words.chart.perMinute}</p>
        <div class="choice" role="group" aria-label={words.chart.measure}>
          {(["share", "count"] as const).map((one) => (
            <button key={one} type="button" aria-pressed={one === measure} onClick={() => { setMeasure(one); }}>
              {words.chart[one]}
            </button>
          ))}
        </div>
      </header>
      <Figure
        counts={counts}
        steps={steps}
        lines={lines}
        names={FAILURE_CAUSES.map((cause) => words.causes[cause])}
        spans={spans}
        isStacked
        isEmpty={steps.attempts === 0}
        least={measure === "share" ? LEAST_SHARE : 1}
        text={text}
        axisText={measure === "share" ? format.roundShare : format.amount}
        extreme={mostFailures(counts, steps, (share, time) => words.chart.mostFailures(format.share(share), format.moment(time)))}
      />
    </section>
  );
}

export function VolumeChart({ counts, spans = NO_SPANS }: Props) {
  const words = useWords();
  const format = useFormat();
  const steps = useMemo(() => stepsOf(counts), [counts]);
  const lines = useMemo(() => {
    const perMinute = (values: readonly (number | null)[]) => measured(counts, steps, values, "count");
    return [
      { colour: "--usual-attempts", isDashed: true, values: perMinute(counts.usual.attempts) },
      { colour: "--usual-approved", isDashed: true, values: perMinute(counts.usual.approved) },
      { colour: "--attempts", values: perMinute(counts.attempts) },
      { colour: "--approved", values: perMinute(counts.by_cause.approved) },
    ];
  }, [counts, steps]);
  const names = [words.chart.usualAttempts, words.chart.usualApproved, words.chart.attempts, words.chart.approved];
  return (
    <section class="panel chart" aria-labelledby="volume-chart">
      <header>
        <h2 id="volume-chart">{words.chart.volume}</h2>
        <p class="unit">{words.chart.perMinute}</p>
      </header>
      <Figure
        counts={counts}
        steps={steps}
        lines={lines}
        names={names}
        spans={spans}
        isStacked={false}
        isEmpty={steps.attempts === 0 && counts.usual.attempts.every((usual) => usual === null)}
        least={1}
        text={format.amount}
        axisText={format.amount}
        extreme={leastApproved(counts, steps, (count, time) => words.chart.leastApproved(format.amount(count), format.moment(time)))}
      />
    </section>
  );
}

interface FigureProps {
  readonly counts: Counts;
  readonly steps: Steps;
  readonly lines: readonly Line[];
  /** What each of the lines is called. */
  readonly names: readonly string[];
  readonly spans: readonly Span[];
  readonly isStacked: boolean;
  readonly isEmpty: boolean;
  readonly least: number;
  readonly text: (value: number) => string;
  readonly axisText: (value: number) => string;
  /** The most remarkable figure, in a sentence. */
  readonly extreme: string;
}

/** The plot, what its colours mean, and the figures of the time that is pointed at, otherwise the latest. */
function Figure({ counts, steps, lines, names, spans, isStacked, isEmpty, least, text, axisText, extreme }: FigureProps) {
  const words = useWords();
  const format = useFormat();
  const [pointed, setPointed] = useState<number | null>(null);
  if (isEmpty) return <p class="empty">{words.chart.empty}</p>;

  const latest = steps.times.length - 1;
  const index = pointed === null || pointed > latest ? latest : pointed;
  const figure = (line: Line, at: number) => {
    const value = line.values[at] ?? null;
    return value === null ? words.none : text(value);
  };
  const timeOf = (at: number) => format.moment((steps.times[at] ?? steps.begin) * 1000);
  const spoken = lines.map((line, place) => `${names[place]} ${figure(line, latest)}`).join(", ");
  const label = [
    words.chart.spans(format.moment(counts.begin), format.moment(counts.end)),
    words.chart.latestFigures(timeOf(latest), spoken),
    extreme,
  ].join(" ");
  return (
    <>
      <Plot
        label={label}
        times={steps.times}
        lines={lines}
        isStacked={isStacked}
        range={[steps.begin, steps.end]}
        least={least}
        axisText={axisText}
        spans={spans}
        group={GROUP}
        onPoint={setPointed}
      />
      <div class="legend">
        <p class="number">{index === latest ? `${words.chart.latest} ${timeOf(index)}` : timeOf(index)}</p>
        <ul>
          {lines.map((line, place) => (
            <li key={line.colour}>
              <span class={`swatch ${line.isDashed ? "dashed" : ""}`} style={{ color: `var(${line.colour})` }} />
              {names[place]} <span class="number">{figure(line, index)}</span>
            </li>
          ))}
        </ul>
      </div>
    </>
  );
}

interface Steps {
  /** When each step began, in seconds. A step that is still being counted would look like a drop, and is left out. */
  readonly times: readonly number[];
  readonly begin: number;
  readonly end: number;
  /** How many attempts there are in all of them. */
  readonly attempts: number;
}

function stepsOf(counts: Counts): Steps {
  const begin = Date.parse(counts.begin) / 1000;
  const end = Date.parse(counts.end) / 1000;
  const settled = Date.parse(counts.settled_until) / 1000;
  const all = counts.attempts.map((_, index) => begin + index * counts.step_s);
  const times = all.filter((time) => time + counts.step_s <= settled);
  const attempts = counts.attempts.slice(0, times.length).reduce((sum, count) => sum + count, 0);
  return { times, begin, end, attempts };
}

function measured(counts: Counts, steps: Steps, values: readonly (number | null)[], measure: Measure): (number | null)[] {
  return steps.times.map((_, index) => {
    const value = values[index] ?? null;
    const attempts = counts.attempts[index] ?? 0;
    if (value === null) return null;
    if (measure === "count") return (value * 60) / counts.step_s;
    return attempts === 0 ? null : value / attempts;
  });
}

/** The steps with the most failures and the fewest approvals, told by `tell`. */
function mostFailures(counts: Counts, steps: Steps, tell: (share: number, time: number) => string): string {
  const failed = counts.attempts.map((attempts, index) => attempts - (counts.by_cause.approved[index] ?? 0));
  return extremeOf(steps, measured(counts, steps, failed, "share"), (one, other) => one > other, tell);
}

function leastApproved(counts: Counts, steps: Steps, tell: (count: number, time: number) => string): string {
  return extremeOf(steps, measured(counts, steps, counts.by_cause.approved, "count"), (one, other) => one < other, tell);
}

function extremeOf(
  steps: Steps,
  values: readonly (number | null)[],
  isBeyond: (one: number, other: number) => boolean,
  tell: (value: number, time: number) => string,
): string {
  let extreme: { value: number; time: number } | undefined;
  for (const [index, value] of values.entries()) {
    const time = steps.times[index];
    if (value !== null && time !== undefined && (!extreme || isBeyond(value, extreme.value))) extreme = { value, time };
  }
  return extreme ? tell(extreme.value, extreme.time * 1000) : "";
}
