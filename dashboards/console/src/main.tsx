// Mounts the page and shows the view that the address names.
import { render } from "preact";
import "./page.css";
import "./frame.css";
import "./overview.css";
import "./chart.css";
import "./details.css";
import "./narrow.css";
import { paths } from "./api.ts";
import type { Tenants } from "./api.ts";
import { Frame } from "./frame.tsx";
import { IncidentView } from "./incident.tsx";
import { useLive } from "./live.ts";
import { NotFound } from "./message.tsx";
import { Overview } from "./overview.tsx";
import { PreferencesContext, useOwnPreferences } from "./preferences.ts";
import { useRoute } from "./route.ts";
import type { Route } from "./route.ts";
import { Start } from "./start.tsx";
import { TerminalView } from "./terminal.tsx";
import { useWords } from "./words.ts";

/** Tenants come and go rarely; somebody who waits for the first one is told at once. */
const TENANTS_PERIOD_MS = 60_000;
const FIRST_TENANT_PERIOD_MS = 5_000;

function Page() {
  const preferences = useOwnPreferences();
  const route = useRoute();
  const tenants = useLive<Tenants>(paths.tenants, route.view === "start" ? FIRST_TENANT_PERIOD_MS : TENANTS_PERIOD_MS);
  return (
    <PreferencesContext.Provider value={preferences}>
      <Frame route={route} tenants={tenants.data?.tenants.map(({ tenant }) => tenant) ?? []}>
        {route.view === "start" ? <Start tenants={tenants} /> : <View route={route} />}
      </Frame>
    </PreferencesContext.Provider>
  );
}

/** Views are mounted anew where they show something else, so that nothing of what they showed before is left. */
function View({ route }: { route: Exclude<Route, { view: "start" }> }) {
  const words = useWords();
  switch (route.view) {
    case "overview":
      return <Overview key={route.tenant} tenant={route.tenant} minutes={route.minutes} />;
    case "incident":
      return <IncidentView key={`${route.tenant}/${route.incident}`} tenant={route.tenant} id={route.incident} />;
    case "terminal": {
      const { tenant, terminal, minutes } = route;
      return <TerminalView key={`${tenant}/${terminal}`} tenant={tenant} terminal={terminal} minutes={minutes} />;
    }
    case "nowhere":
      return <NotFound text={words.trouble.nowhere} />;
  }
}

render(<Page />, document.body);
