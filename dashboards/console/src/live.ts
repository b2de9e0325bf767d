// Keeps an answer of the console up to date for as long as somebody looks at it.
import { useEffect, useState } from "preact/hooks";
import { ask, Problem } from "./api.ts";

export interface Live<T> {
  /** The newest answer. It stays while later questions fail, and while another path is asked for the first time. */
  readonly data?: T;
  /** When it came, by the browser's clock. */
  readonly answeredAt?: number;
  /** Why the last question was not answered. */
  readonly problem?: Problem;
  /** Whether `data` is of the path that is asked for now. */
  readonly isCurrent: boolean;
}

const PERIOD_MS = 5_000;
const LONGEST_PAUSE_MS = 30_000;

interface Kept<T> {
  path: string | null;
  data?: T;
  answeredAt?: number;
  problem?: Problem;
}

/**
 * Asks for `path` every `periodMs`, one question at a time, and not while the tab is hidden. `null` asks for nothing.
 *
 * The component has to be mounted anew (by its key) where the old answer must not be shown under the new path, as with another tenant.
 */
export function useLive<T>(path: string | null, periodMs = PERIOD_MS): Live<T> {
  const [kept, setKept] = useState<Kept<T>>({ path: null });

  useEffect(() => {
    if (path === null) return undefined;
    const left = new AbortController();
    let timer: number | undefined;
    let isAsking = false;
    let pauseMs = periodMs;

    const refresh = async () => {
      window.clearTimeout(timer);
      if (isAsking || document.hidden) return;
      isAsking = true;
      try {
        const data = await ask<T>(path, left.signal);
        pauseMs = periodMs;
        if (!left.signal.aborted) setKept({ path, data, answeredAt: Date.now() });
      } catch (error) {
        const problem = error instanceof Problem ? error : new Problem(0, String(error));
        pauseMs = Math.max(periodMs, Math.min(pauseMs * 2, LONGEST_PAUSE_MS));
        if (!left.signal.aborted) setKept((before) => ({ ...before, problem }));
      }
      isAsking = false;
      if (!left.signal.aborted) timer = window.setTimeout(() => void refresh(), pauseMs);
    };
    const onVisibility = () => {
      if (!document.hidden) void refresh();
    };

    void refresh();
    document.addEventListener("visibilitychange", onVisibility);
    return () => {
      left.abort();
      window.clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisibility);
    };
  }, [path, periodMs]);

  const { path: answered, ...live } = kept;
  return { ...live, isCurrent: answered === path };
}
