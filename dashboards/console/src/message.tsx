// What the page says in place of figures, or about them: that they are old, on their way, or not there at all.
import { useEffect } from "preact/hooks";
import { useFormat } from "./format.ts";
import type { Live } from "./live.ts";
import { overviewAddress } from "./route.ts";
import { useWords } from "./words.ts";

/** Says what the page is, in the title of its window. */
export function useTitle(page: string, tenant?: string) {
  const words = useWords();
  const title = tenant === undefined ? words.product : words.frame.title(page, tenant);
  useEffect(() => {
    document.title = title;
  }, [title]);
}

/** Says that something of what is shown is not up to date, since when, and why. */
export function Trouble({ of }: { of: readonly Live<unknown>[] }) {
  const words = useWords();
  const format = useFormat();
  const failing = of.filter((live) => live.problem !== undefined);
  const told = failing.map((live) => live.problem?.detail).find((detail) => detail !== "");
  const detail = told ?? words.trouble.noAnswer;
  const answered = failing.map((live) => live.answeredAt).filter((time) => time !== undefined);
  return (
    <div role="status">
      {failing.length > 0 && (
        <p class="trouble">
          {answered.length > 0 ? words.trouble.stale(format.clock(Math.min(...answered)), detail) : words.trouble.nothingYet(detail)}{" "}
          <span class="soft">{words.trouble.again}</span>
        </p>
      )}
    </div>
  );
}

export function Loading() {
  const words = useWords();
  return <p class="loading">{words.frame.loading}</p>;
}

/** With a tenant, the way back leads to its overview. */
export function NotFound({ text, tenant }: { text: string; tenant?: string }) {
  const words = useWords();
  useTitle(words.trouble.notFound, tenant);
  return (
    <section class="panel message">
      <h1>{words.trouble.notFound}</h1>
      <p>{text}</p>
      <p>
        {tenant === undefined ? (
          <a href="#/">{words.trouble.toStart}</a>
        ) : (
          <a href={overviewAddress(tenant)}>{words.trouble.toOverview}</a>
        )}
      </p>
    </section>
  );
}
