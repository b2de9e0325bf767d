// The console's HTTP API: the shapes of its answers, and how it is asked.

export const CAUSES = ["approved", "network", "device", "bank", "account", "other", "unknown"] as const;
export type Cause = (typeof CAUSES)[number];
export type FailureCause = Exclude<Cause, "approved">;
export const FAILURE_CAUSES = CAUSES.filter((cause): cause is FailureCause => cause !== "approved");

export interface Text {
  zh_cn: string;
  en: string;
}

export interface Tenants {
  tenants: { tenant: string; counted_until: string }[];
}

export interface Summary {
  time: string;
  settled_until: string;
  counted_until: string | null;
  window: { begin: string; end: string; attempts: number; by_cause: Record<Cause, number>; success_rate: number | null };
  usual: { attempts: number; success_rate: number | null } | null;
  open_incidents: number;
}

export interface Counts {
  begin: string;
  end: string;
  step_s: number;
  attempts: number[];
  by_cause: Record<Cause, number[]>;
  usual: { attempts: (number | null)[]; approved: (number | null)[] };
  settled_until: string;
}

export type IncidentState = "open" | "unobserved" | "closed" | "abandoned";

export interface SliceValue {
  dimension: string;
  value: string;
}

/** The finest slice that explains an incident's failures, and whom it affects, in the time that was looked at. */
export interface Explanation {
  signal: string;
  from_time: string;
  until_time: string;
  slice: string;
  values: SliceValue[];
  score_nats: number;
  contribution: number;
  relative_risk: number | null;
  alternatives: { slice: string; values: SliceValue[]; score_nats: number }[];
  attempts: number;
  failed: number;
  merchants: number;
  terminals: number;
  transactions: number;
  amounts: { currency: string; minor: number }[];
  sampled_one_in: number;
  query: string;
  parts: { slice: string; values: SliceValue[]; score_nats: number; attempts: number; failed: number }[];
}

export interface Incident {
  incident_id: string;
  revision: number;
  state: IncidentState;
  cause: Cause;
  slice: string;
  values: SliceValue[];
  is_counted: boolean;
  begin_time: string;
  open_time: string;
  update_time: string;
  close_time: string | null;
  signals: string[];
  evidence: Evidence;
  opening: { from_time: string; until_time: string; evidence: Evidence } | null;
  explanation: Explanation | null;
  summary: Text;
}

export interface Evidence {
  attempts: number;
  counted: number;
  expected: number;
  nats: number;
}

export interface Incidents {
  incidents: Incident[];
}

export interface Revision {
  revision: number;
  state: IncidentState;
  update_time: string;
  summary: Text;
}

export interface IncidentWithHistory extends Incident {
  revisions: Revision[];
}

export interface Advice {
  meaning: Text;
  cashier: Text;
  service_desk: Text;
  retry: string;
  retry_minutes: number | null;
}

/** Texts are empty where a terminal did not say. */
export interface Outcome {
  terminal: string;
  spool: string;
  sequence: string;
  completed_at: string;
  received_at: string;
  merchant: string;
  store: string;
  model: string;
  firmware: string;
  region: string;
  carrier: string;
  access_network: string;
  type: string;
  entry_mode: string;
  amount_minor: number;
  currency: string;
  issuer: string;
  acquirer: string;
  host: string;
  stage: string;
  response_code: string;
  response_spec: string;
  money_outcome: string;
  terminal_condition: string;
  terminal_error_code: string;
  diagnostic: string;
  attempt: number;
  total_ms: number;
  latencies_ms: Record<string, number>;
  signal_dbm: number | null;
  verdict: { tag: string; cause: Cause; reason: string; confidence: number; rule_set: string; revision: number; advice: Advice | null };
}

export interface Outcomes {
  outcomes: Outcome[];
}

/** Why there is no answer. Status 0 and no detail: nothing came back that is of this API. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
  ) {
    super(detail || `no answer (${status})`);
  }
}

/** Whether it was asked for something that there is not, or cannot be: asking again is of no use. */
export function isRefused(problem: Problem | undefined): boolean {
  return problem !== undefined && problem.status >= 400 && problem.status < 500;
}

/** A query of ClickHouse that takes longer than this is not live any more. */
const TIMEOUT_MS = 20_000;

/** Asks for what is at `path`, which begins behind `/api/v1/`. Throws `Problem`, and only that. */
export async function ask<T>(path: string, signal: AbortSignal): Promise<T> {
  let answer: Response;
  try {
    const either = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
    answer = await fetch(`/api/v1/${path}`, { signal: either, headers: { accept: "application/json" } });
    if (answer.ok) return (await answer.json()) as T;
  } catch {
    throw new Problem(0, "");
  }
  throw new Problem(answer.status, await detailOf(answer));
}

/** Something between page and console, a proxy say, may answer in another form. */
async function detailOf(answer: Response): Promise<string> {
  try {
    const problem = (await answer.json()) as { detail?: unknown };
    return typeof problem.detail === "string" ? problem.detail : "";
  } catch {
    return "";
  }
}

function pathOf(tenant: string, rest: string, query: Record<string, string | number | undefined> = {}): string {
  const asked = Object.entries(query).filter(([, value]) => value !== undefined);
  const search = asked.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`).join("&");
  return `tenants/${encodeURIComponent(tenant)}/${rest}${search && `?${search}`}`;
}

/** The paths of what can be asked for. */
export const paths = {
  tenants: "tenants",
  summary: (tenant: string) => pathOf(tenant, "summary"),
  counts: (tenant: string, query: { minutes: number; slice?: string; until?: string | undefined }) => pathOf(tenant, "counts", query),
  incidents: (tenant: string) => pathOf(tenant, "incidents", { minutes: 1440, limit: 200 }),
  incident: (tenant: string, id: string) => pathOf(tenant, `incidents/${encodeURIComponent(id)}`),
  outcomes: (
    tenant: string,
    query: {
      terminal?: string;
      slice?: string;
      cause?: Cause | undefined;
      failed?: "true";
      minutes: number;
      until?: string | undefined;
      limit: number;
    },
  ) => pathOf(tenant, "outcomes", query),
};
