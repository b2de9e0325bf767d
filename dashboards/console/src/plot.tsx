// A plot over time: uPlot, drawn in the page's colours, fonts and language, and described for those who do not see it.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { useLayoutEffect, useRef } from "preact/hooks";
import { useFormat } from "./format.ts";
import type { Format } from "./format.ts";
import { usePreferences } from "./preferences.ts";

export interface Line {
  /** Custom property that holds its colour. */
  readonly colour: string;
  /** One value for each time; null leaves a gap. */
  readonly values: readonly (number | null)[];
  readonly isDashed?: boolean;
}

/** A stretch of time that is shaded, in seconds. */
export interface Span {
  readonly begin: number;
  readonly end: number;
}

interface Props {
  /** What it shows, in words. */
  readonly label: string;
  /** Where values stand, in seconds, ascending. */
  readonly times: readonly number[];
  readonly lines: readonly Line[];
  /** Whether lines are areas, each on top of those before it. */
  readonly isStacked: boolean;
  /** The time that is shown, in seconds, whether or not there are values everywhere. */
  readonly range: readonly [number, number];
  /** The value that the vertical axis reaches at least, so that little does not look like much. */
  readonly least: number;
  readonly axisText: (value: number) => string;
  readonly spans: readonly Span[];
  /** Plots of one group show the same time when one of them is pointed at. */
  readonly group: string;
  /** Told which time is pointed at, as an index of `times`. */
  readonly onPoint: (index: number | null) => void;
}

const HEIGHT_PX = 196;
const AXIS_WIDTH_PX = 52;
const AXIS_HEIGHT_PX = 26;
/** Beside the plot, so that half of the last time's label has room. */
const RIGHT_PX = 32;

export function Plot(props: Props) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(null);
  // uPlot lives longer than a rendering: what it calls back reads the newest.
  const format = useFormat();
  const newest = useRef({ props, format });
  newest.current = { props, format };
  const { theme } = usePreferences();

  useLayoutEffect(() => {
    const element = host.current;
    if (!element) return undefined;
    const made = new uPlot(optionsOf(element, () => newest.current), dataOf(newest.current.props), element);
    plot.current = made;
    const observer = new ResizeObserver(() => {
      made.setSize({ width: element.clientWidth, height: HEIGHT_PX });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [props.group, props.lines.length]);

  const { times, lines, isStacked, range, least, spans } = props;
  useLayoutEffect(() => {
    plot.current?.setData(dataOf({ times, lines, isStacked }));
  }, [times, lines, isStacked, range[0], range[1], least, spans, theme, format]);

  return <div class="plot" role="img" aria-label={props.label} ref={host} />;
}

function optionsOf(element: HTMLElement, now: () => { props: Props; format: Format }): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const { lines, isStacked, group } = now().props;
  const axis: uPlot.Axis = {
    stroke: () => colour("--ink-soft"),
    font: `12px ${style.fontFamily}`,
    ticks: { show: false },
    grid: { stroke: () => colour("--grid"), width: 1 },
  };
  return {
    width: element.clientWidth,
    height: HEIGHT_PX,
    legend: { show: false },
    padding: [8, RIGHT_PX, 0, 0],
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false }, sync: { key: group } },
    scales: {
      x: { time: true, range: () => [...now().props.range] },
      y: { range: (_, __, most) => [0, Math.max(now().props.least, most * 1.06)] },
    },
    axes: [
      {
        ...axis,
        size: AXIS_HEIGHT_PX,
        space: 72,
        values: (_, splits, __, ___, step) => splits.map((time) => timeText(now().format, time, step)),
      },
      { ...axis, size: AXIS_WIDTH_PX, space: 36, values: (_, splits) => splits.map((value) => now().props.axisText(value)) },
    ],
    series: [
      {},
      ...inDrawingOrder(lines, isStacked).map((line): uPlot.Series => {
        const paint = () => colour(line.colour);
        const look = isStacked ? { fill: paint, width: 0 } : { stroke: paint, width: 1.5, ...(line.isDashed && { dash: [4, 4] }) };
        return { ...look, points: { show: false } };
      }),
    ],
    hooks: {
      drawClear: [
        (drawn) => {
          for (const span of now().props.spans) shade(drawn, span, colour("--span"), colour("--span-edge"));
        },
      ],
      setCursor: [
        (pointed) => {
          now().props.onPoint(pointed.cursor.idx ?? null);
        },
      ],
    },
  };
}

/** Of areas, the sum of all is painted first and the others over it, so that each shows what it adds. */
function inDrawingOrder(lines: readonly Line[], isStacked: boolean): readonly Line[] {
  return isStacked ? lines.toReversed() : lines;
}

function dataOf({ times, lines, isStacked }: Pick<Props, "times" | "lines" | "isStacked">): uPlot.AlignedData {
  const drawn = lines.map((line, place) => (isStacked ? sumOf(lines.slice(0, place + 1), times.length) : [...line.values]));
  return [[...times], ...(isStacked ? drawn.toReversed() : drawn)];
}

function sumOf(lines: readonly Line[], length: number): (number | null)[] {
  return Array.from({ length }, (_, index) =>
    lines.reduce<number | null>((sum, line) => {
      const value = line.values[index] ?? null;
      return sum === null || value === null ? null : sum + value;
    }, 0),
  );
}

function shade(drawn: uPlot, span: Span, fill: string, edge: string) {
  const { left, top, width, height } = drawn.bbox;
  const within = (x: number) => Math.min(Math.max(x, left), left + width);
  const begin = within(drawn.valToPos(span.begin, "x", true));
  const end = within(drawn.valToPos(span.end, "x", true));
  drawn.ctx.save();
  drawn.ctx.fillStyle = fill;
  drawn.ctx.fillRect(begin, top, end - begin, height);
  drawn.ctx.fillStyle = edge;
  drawn.ctx.fillRect(begin, top, uPlot.pxRatio, height);
  drawn.ctx.fillRect(end - uPlot.pxRatio, top, uPlot.pxRatio, height);
  drawn.ctx.restore();
}

/** What stands below the time axis; a day's first mark names the day. */
function timeText(format: Format, time: number, step: number): string {
  const date = new Date(time * 1000);
  if (date.getHours() === 0 && date.getMinutes() === 0 && date.getSeconds() === 0) return format.day(time * 1000);
  return step < 60 ? format.clock(time * 1000) : format.hour(time * 1000);
}
