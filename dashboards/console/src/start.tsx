// The page without a tenant: goes to the first one, or waits for it.
import { useEffect } from "preact/hooks";
import type { Tenants } from "./api.ts";
import type { Live } from "./live.ts";
import { Loading, Trouble, useTitle } from "./message.tsx";
import { overviewAddress } from "./route.ts";
import { useWords } from "./words.ts";

export function Start({ tenants }: { tenants: Live<Tenants> }) {
  const words = useWords();
  useTitle(words.frame.overview);
  const first = tenants.data?.tenants[0]?.tenant;
  useEffect(() => {
    // Not an entry of the history of its own: "back" would only lead here and forward again.
    if (first !== undefined) window.location.replace(overviewAddress(first));
  }, [first]);
  return (
    <>
      <Trouble of={[tenants]} />
      {!tenants.data && !tenants.problem && <Loading />}
      {tenants.data && first === undefined && (
        <section class="panel message">
          <h1>{words.start.title}</h1>
          <p>{words.start.text}</p>
        </section>
      )}
    </>
  );
}
