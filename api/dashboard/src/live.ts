// What is on the screen is kept up to date here, and nowhere else: one timer for the whole page. It stands still while nobody
// looks (the tab is hidden) or wants it (refresh is paused), and it asks more seldom where answers are slow, so that a page
// left open neither leaks nor hammers.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Call } from "./api/calls";
import type { Changes } from "./events";
import { onBack, Problem, send } from "./api/send";
import { nowMs } from "./clock";

const FASTEST_MS = 1000;
export const POLL_MS = 15_000;
const POLL_UNFOCUSED_MS = 20_000;
/** A request may take this share of the time: a slow answer makes the next one later. */
const SHARE = 0.05;
const LONGEST_MS = 120_000;
const LONGEST_BACK_OFF_MS = 30_000;

let paused = false;
const pauseListeners = new Set<() => void>();

export function setPaused(value: boolean): void {
  paused = value;
  pauseListeners.forEach((tell) => tell());
}

export function usePaused(): boolean {
  const [value, set] = useState(paused);
  useEffect(() => {
    const follow = () => set(paused);
    pauseListeners.add(follow);
    return () => void pauseListeners.delete(follow);
  }, []);
  return value;
}

/** How long to wait after an answer that took `tookMs`. */
export function pollDelay(tookMs: number, wantedMs: number, focused: boolean): number {
  return Math.max(FASTEST_MS, focused ? wantedMs : Math.max(wantedMs, POLL_UNFOCUSED_MS), Math.min(LONGEST_MS, tookMs / SHARE));
}

/** How long to wait after so many requests in a row that were not answered: longer each time, and not the same for all. */
export function backOff(failures: number, wantedMs: number, luck = Math.random()): number {
  const most = Math.max(wantedMs, LONGEST_BACK_OFF_MS);
  return Math.max(wantedMs, Math.min(most, FASTEST_MS * 2 ** failures) * (0.75 + luck / 2));
}

/** Whether a later request may do better: nobody answered, or one who could not. */
export function mayPass(problem: Problem): boolean {
  return problem.status === 0 || problem.status === 429 || problem.status >= 500;
}

/** How long to wait with an answer to a change, after one that took `tookMs` and came `sinceMs` ago: what is slow to answer is
 * not asked for each second only because something changes each second. */
export function changeDelay(tookMs: number, sinceMs: number): number {
  return Math.max(0, Math.min(LONGEST_MS, tookMs / SHARE) - sinceMs);
}

export interface Live<T> {
  /** The latest answer; it stays while a newer one is on its way, so that nothing jumps. */
  data: T | undefined;
  problem: Problem | undefined;
  /** True until the first answer to this very call. */
  loading: boolean;
  reload: () => void;
}

const NO_CHANGES: Changes = { version: 0, told: false };
/** A stream of changes goes on while the database is away, so it says nothing of that. */
const POLL_WHILE_TOLD = 3;

/** The answer to a call, asked for again and again; at once after a change, if changes are given, and then more seldom
 * without one. `everyMs` 0: once. A call of null asks nothing. */
export function useLive<T>(call: Call<T> | null, everyMs = POLL_MS, changes: Changes = NO_CHANGES): Live<T> {
  const [state, setState] = useState<{ address: string; data?: T; problem?: Problem }>({ address: "" });
  const [round, setRound] = useState(0);
  const address = call ? `${call.method} ${call.address} ${JSON.stringify(call.body ?? null)}` : "";
  const latest = useRef(call);
  latest.current = call;
  const hurry = useRef<() => void>();
  // Known a moment after the first request: that one goes on.
  const told = useRef(false);
  told.current = changes.told;
  useEffect(() => {
    if (!address) return undefined;
    const abort = new AbortController();
    let timer = 0;
    let busy = false;
    let failures = 0;
    let changed = false;
    let last = { tookMs: 0, at: 0 };
    const ask = async () => {
      clearTimeout(timer);
      busy = true;
      changed = false;
      const began = performance.now();
      try {
        const data = await send(latest.current as Call<T>, abort.signal);
        failures = 0;
        last = { tookMs: performance.now() - began, at: performance.now() };
        if (!abort.signal.aborted) setState({ address, data });
      } catch (error) {
        if (abort.signal.aborted) return;
        const problem = error instanceof Problem ? error : new Problem(0, "Error", String(error));
        // Without a key it waits until there is one again.
        failures = mayPass(problem) || problem.status === 401 ? failures + 1 : 0;
        setState((s) => ({ address, problem, ...(s.address === address ? { data: s.data as T } : {}) }));
        if (problem.status === 401) return;
      } finally {
        busy = false;
      }
      plan(performance.now() - began);
    };
    const plan = (tookMs: number) => {
      if (abort.signal.aborted || (!everyMs && failures === 0 && !changed)) return;
      const pollMs = told.current ? everyMs * POLL_WHILE_TOLD : everyMs;
      const wait = failures > 0 ? backOff(failures, everyMs) : changed ? Math.max(FASTEST_MS, changeDelay(tookMs, 0)) : pollDelay(tookMs, pollMs, document.hasFocus());
      timer = window.setTimeout(() => (paused || document.hidden ? plan(tookMs) : void ask()), wait);
    };
    const stopHearing = onBack(() => failures > 0 && !busy && !abort.signal.aborted && void ask());
    // A request that is under way is not given up for a change: the next one hears of it.
    hurry.current = () => {
      changed = true;
      if (busy || failures > 0) return;
      clearTimeout(timer);
      timer = window.setTimeout(() => void ask(), changeDelay(last.tookMs, performance.now() - last.at));
    };
    void ask();
    return () => {
      hurry.current = undefined;
      abort.abort();
      stopHearing();
      clearTimeout(timer);
    };
  }, [address, everyMs, round]);
  useEffect(() => {
    if (changes.version > 0) hurry.current?.();
  }, [changes.version]);
  const current = state.address === address;
  return {
    data: state.data,
    // Silence is told once for the whole page; that of the database also where there is nothing to show.
    problem: current && (!state.problem?.silent || (state.problem.silent === "database" && state.data === undefined)) ? state.problem : undefined,
    loading: address !== "" && !current,
    reload: () => setRound((n) => n + 1),
  };
}

/** Now by the time of the nodes, in ms; the component is drawn again every second while somebody looks. */
export function useNow(): number {
  const [now, setNow] = useState(nowMs);
  useEffect(() => {
    const timer = setInterval(() => {
      if (!document.hidden && !paused) setNow(nowMs());
    }, 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}
