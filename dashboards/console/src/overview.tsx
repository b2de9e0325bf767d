// A tenant's fleet as it does now: the last minute, the incidents, and how it came to this.
import { CAUSES, isRefused, paths } from "./api.ts";
import type { Counts, Incidents, Summary } from "./api.ts";
import { CauseShares } from "./badge.tsx";
import { FailuresChart, VolumeChart } from "./chart.tsx";
import { useFormat } from "./format.ts";
import { IncidentList } from "./incidents.tsx";
import { useLive } from "./live.ts";
import { Loading, NotFound, Trouble, useTitle } from "./message.tsx";
import { PeriodChoice } from "./period.tsx";
import { OVERVIEW_PERIODS, overviewAddress } from "./route.ts";
import { useWords } from "./words.ts";

/** Counts are some fifteen seconds old by their nature; what is older than this is worth a word, and so is a fleet that is silent for as long. */
const LATE_MS = 60_000;
/** How often counts of a long time are asked for, whose steps are longer too. */
const LONG_PERIOD_MS = 30_000;

export function Overview({ tenant, minutes }: { tenant: string; minutes: number }) {
  const words = useWords();
  const summary = useLive<Summary>(paths.summary(tenant));
  const counts = useLive<Counts>(paths.counts(tenant, { minutes }), minutes > 60 ? LONG_PERIOD_MS : undefined);
  const incidents = useLive<Incidents>(paths.incidents(tenant));
  useTitle(words.frame.overview, tenant);
  if (!summary.data && isRefused(summary.problem)) return <NotFound text={words.trouble.noTenant(tenant)} />;
  return (
    <>
      <h1 class="unseen">{words.frame.title(words.frame.overview, tenant)}</h1>
      <Trouble of={[summary, counts, incidents]} />
      {summary.data ? <Minute tenant={tenant} summary={summary.data} /> : !summary.problem && <Loading />}
      <div class="columns">
        {incidents.data && (
          <section class="panel side" aria-labelledby="incidents">
            <header>
              <h2 id="incidents">{words.overview.incidents}</h2>
            </header>
            <IncidentList tenant={tenant} incidents={incidents.data.incidents} />
          </section>
        )}
        {counts.data && (
          <div class="leading" aria-busy={!counts.isCurrent}>
            <div class="tools">
              <PeriodChoice minutes={minutes} periods={OVERVIEW_PERIODS} address={(period) => overviewAddress(tenant, period)} />
            </div>
            <FailuresChart counts={counts.data} />
            <VolumeChart counts={counts.data} />
          </div>
        )}
      </div>
    </>
  );
}

function Minute({ tenant, summary }: { tenant: string; summary: Summary }) {
  const words = useWords();
  const format = useFormat();
  const { window: minute, usual } = summary;
  if (summary.counted_until === null) return <p class="panel empty">{words.overview.nothingCounted(tenant)}</p>;
  const settled = Date.parse(summary.settled_until);
  const lateMs = Date.parse(summary.time) - settled;
  const silentMs = settled - Date.parse(summary.counted_until);
  const usually = (value: string | null) => (value === null ? words.overview.usualUnknown : words.overview.usually(value));
  const failed = CAUSES.reduce((sum, cause) => (cause === "approved" ? sum : sum + minute.by_cause[cause]), 0);
  return (
    <>
      <div role="status">
        {lateMs > LATE_MS && <p class="late">{words.overview.late(format.duration(lateMs))}</p>}
        {silentMs > LATE_MS && <p class="late">{words.overview.silent(format.duration(silentMs))}</p>}
      </div>
      <section class="panel minute" aria-label={words.overview.now}>
        <div class="figure">
          <h2>{words.overview.successRate}</h2>
          <p class="large number">{minute.success_rate === null ? words.none : format.share(minute.success_rate)}</p>
          <p class="soft number">
            {minute.success_rate === null
              ? words.overview.noAttempts
              : usually(typeof usual?.success_rate === "number" ? format.share(usual.success_rate) : null)}
          </p>
        </div>
        <div class="figure">
          <h2>{words.overview.attempts}</h2>
          <p class="large number">{format.count(minute.attempts)}</p>
          <p class="soft number">{usually(usual && format.count(usual.attempts))}</p>
        </div>
        <div class="figure wide">
          <h2>
            {words.overview.failures} <span class="number">{format.count(failed)}</span>
          </h2>
          <CauseShares counts={minute.by_cause} attempts={minute.attempts} />
        </div>
        <div class={`figure ${summary.open_incidents > 0 ? "alarm" : ""}`}>
          <h2>{words.overview.openIncidents}</h2>
          <p class="large number">{format.count(summary.open_incidents)}</p>
          <p class="soft">{summary.open_incidents > 0 ? words.overview.openSome : words.overview.openNone}</p>
        </div>
        <p class="span soft number">
          {words.overview.minute(format.clock(minute.begin), format.clock(minute.end))}
        </p>
      </section>
    </>
  );
}
