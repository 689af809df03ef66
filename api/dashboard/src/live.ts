// What is on the screen is kept up to date here, and nowhere else: one timer for the whole page. It stands still while nobody
// looks (the tab is hidden) or wants it (refresh is paused), and it asks more seldom where answers are slow, so that a page
// left open neither leaks nor hammers.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Call } from "./api/calls";
import type { Changes } from "./events";
import { Problem, send } from "./api/send";

const FASTEST_MS = 1000;
export const POLL_MS = 10_000;
const POLL_UNFOCUSED_MS = 15_000;
/** A request may take this share of the time: a slow answer makes the next one later. */
const SHARE = 0.05;

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
  return Math.max(FASTEST_MS, focused ? wantedMs : Math.max(wantedMs, POLL_UNFOCUSED_MS), tookMs / SHARE);
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
const POLL_WHILE_TOLD = 6;

/** The answer to a call, asked for again and again; at once after a change, if changes are given, and then more seldom
 * without one. `everyMs` 0: once. A call of null asks nothing. */
export function useLive<T>(call: Call<T> | null, everyMs = POLL_MS, changes: Changes = NO_CHANGES): Live<T> {
  const [state, setState] = useState<{ address: string; data?: T; problem?: Problem }>({ address: "" });
  const [round, setRound] = useState(0);
  const address = call ? `${call.method} ${call.address} ${JSON.stringify(call.body ?? null)}` : "";
  const latest = useRef(call);
  latest.current = call;
  useEffect(() => {
    if (!address) return undefined;
    const abort = new AbortController();
    const pollMs = changes.told ? everyMs * POLL_WHILE_TOLD : everyMs;
    let timer = 0;
    const ask = async () => {
      const began = performance.now();
      try {
        const data = await send(latest.current as Call<T>, abort.signal);
        if (!abort.signal.aborted) setState({ address, data });
      } catch (error) {
        if (abort.signal.aborted) return;
        const problem = error instanceof Problem ? error : new Problem(0, "Error", String(error));
        setState((s) => ({ address, problem, ...(s.address === address ? { data: s.data as T } : {}) }));
        if (problem.status === 401) return;
      }
      plan(performance.now() - began);
    };
    const plan = (tookMs: number) => {
      if (!everyMs || abort.signal.aborted) return;
      timer = window.setTimeout(() => (paused || document.hidden ? plan(tookMs) : void ask()), pollDelay(tookMs, pollMs, document.hasFocus()));
    };
    void ask();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [address, everyMs, round, changes.version, changes.told]);
  const current = state.address === address;
  return {
    data: state.data,
    problem: current ? state.problem : undefined,
    loading: address !== "" && !current,
    reload: () => setRound((n) => n + 1),
  };
}

/** Now, in ms; the component is drawn again every second while somebody looks. */
export function useNow(): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => {
      if (!document.hidden && !paused) setNow(Date.now());
    }, 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}
