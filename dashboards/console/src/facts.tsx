// A list of names and values.
import { Fragment } from "preact";
import type { ComponentChildren } from "preact";

export type Fact = readonly [name: string, value: ComponentChildren];

/** What was not stated, an empty text, is left out. */
export function Facts({ facts }: { facts: readonly Fact[] }) {
  return (
    <dl class="facts">
      {facts
        .filter(([, value]) => value !== "")
        .map(([name, value]) => (
          <Fragment key={name}>
            <dt>{name}</dt>
            <dd class="number">{value}</dd>
          </Fragment>
        ))}
    </dl>
  );
}
