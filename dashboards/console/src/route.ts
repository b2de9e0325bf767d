// Where in the page somebody is: the part of the address behind `#`.
import { useEffect, useState } from "preact/hooks";

export type Route =
  | { view: "start" }
  | { view: "overview"; tenant: string; minutes: number }
  | { view: "incident"; tenant: string; incident: string }
  | { view: "terminal"; tenant: string; terminal: string; minutes: number }
  | { view: "nowhere" };

/** Periods that can be chosen, in minutes; the first is taken where the address says nothing. */
export const OVERVIEW_PERIODS = [60, 15, 360, 1440, 10_080] as const;
export const TERMINAL_PERIODS = [1440, 60, 10_080] as const;

export function overviewAddress(tenant: string, minutes?: number): string {
  return `#/${encodeURIComponent(tenant)}${periodQuery(minutes)}`;
}

export function incidentAddress(tenant: string, incident: string): string {
  return `#/${encodeURIComponent(tenant)}/incidents/${encodeURIComponent(incident)}`;
}

export function terminalAddress(tenant: string, terminal: string, minutes?: number): string {
  return `#/${encodeURIComponent(tenant)}/terminals/${encodeURIComponent(terminal)}${periodQuery(minutes)}`;
}

/** The route that the address names now, and from then on. */
export function useRoute(): Route {
  const [hash, setHash] = useState(window.location.hash);
  useEffect(() => {
    const onChange = () => {
      setHash(window.location.hash);
    };
    window.addEventListener("hashchange", onChange);
    return () => {
      window.removeEventListener("hashchange", onChange);
    };
  }, []);
  return routeOf(hash);
}

function routeOf(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#?\/?/, "").split("?");
  let parts: string[];
  try {
    parts = path.split("/").map(decodeURIComponent);
  } catch {
    return { view: "nowhere" };
  }
  const [tenant = "", kind, id = "", ...more] = parts;
  if (path === "") return { view: "start" };
  if (tenant && kind === undefined) return { view: "overview", tenant, minutes: periodOf(query, OVERVIEW_PERIODS) };
  if (tenant && id && more.length === 0) {
    if (kind === "incidents") return { view: "incident", tenant, incident: id };
    if (kind === "terminals") return { view: "terminal", tenant, terminal: id, minutes: periodOf(query, TERMINAL_PERIODS) };
  }
  return { view: "nowhere" };
}

function periodOf(query: string, periods: readonly [number, ...number[]]): number {
  const minutes = Number(new URLSearchParams(query).get("minutes"));
  return periods.includes(minutes) ? minutes : periods[0];
}

function periodQuery(minutes: number | undefined): string {
  return minutes === undefined ? "" : `?minutes=${minutes}`;
}
