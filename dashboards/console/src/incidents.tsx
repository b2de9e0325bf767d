// The list of a tenant's incidents: those that are not over first, and new ones spoken out.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Incident } from "./api.ts";
import { CauseBadge, StateBadge } from "./badge.tsx";
import { useFormat } from "./format.ts";
import type { Format } from "./format.ts";
import { incidentAddress } from "./route.ts";
import { useTextOf, useWords } from "./words.ts";
import type { Words } from "./words.ts";

export function IncidentList({ tenant, incidents }: { tenant: string; incidents: readonly Incident[] }) {
  const words = useWords();
  const ordered = [...incidents.filter(isFollowed), ...incidents.filter((incident) => !isFollowed(incident))];
  return (
    <>
      <Announcer incidents={incidents} />
      {ordered.length === 0 && <p class="empty">{words.overview.noIncidents}</p>}
      <ul class="incidents">
        {ordered.map((incident) => (
          <Row key={incident.incident_id} tenant={tenant} incident={incident} />
        ))}
      </ul>
    </>
  );
}

function Row({ tenant, incident }: { tenant: string; incident: Incident }) {
  const words = useWords();
  const format = useFormat();
  const textOf = useTextOf();
  return (
    <li class={isFollowed(incident) ? "followed" : ""}>
      <p class="marks">
        <StateBadge state={incident.state} />
        <CauseBadge cause={incident.cause} />
        <span class="number">{format.duration(lastedMs(incident))}</span>
      </p>
      <a href={incidentAddress(tenant, incident.incident_id)}>{textOf(incident.summary)}</a>
      <p class="soft number">
        {words.overview.since} <time dateTime={incident.begin_time}>{format.moment(incident.begin_time)}</time>
        {" · "}
        {evidenceText(words, format, incident)}
      </p>
    </li>
  );
}

/** Says an incident that was not there when the list was first shown, for those who hear the page. */
function Announcer({ incidents }: { incidents: readonly Incident[] }) {
  const words = useWords();
  const textOf = useTextOf();
  const known = useRef(new Set(incidents.map((incident) => incident.incident_id)));
  const [said, setSaid] = useState("");
  useEffect(() => {
    const added = incidents.filter((incident) => !known.current.has(incident.incident_id));
    for (const incident of added) known.current.add(incident.incident_id);
    const newest = added.find(isFollowed);
    if (newest) setSaid(words.overview.newIncident(textOf(newest.summary)));
  }, [incidents]);
  return (
    <p class="unseen" aria-live="polite">
      {said}
    </p>
  );
}

function isFollowed(incident: Incident): boolean {
  return incident.state === "open" || incident.state === "unobserved";
}

/** How long an incident lasted, or lasts so far. */
export function lastedMs(incident: Incident): number {
  const end = incident.close_time === null ? Date.now() : Date.parse(incident.close_time);
  return end - Date.parse(incident.begin_time);
}

/** The counts that show an incident, in a few words. */
function evidenceText(words: Words, format: Format, incident: Incident): string {
  const { attempts, counted, expected } = incident.evidence;
  if (isMissingApprovals(incident.signals)) return words.incident.approved(format.count(counted), format.amount(expected));
  return words.incident.failed(format.count(counted), format.count(attempts), format.amount(expected));
}

/** What was counted is then approvals and not failures: the first signal decides. */
export function isMissingApprovals(signals: readonly string[]): boolean {
  return signals[0] === "missing_approvals";
}
