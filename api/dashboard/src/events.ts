// Server-sent events of what a screen shows. They say that something changed; the screen then asks the API as it always does.
// Where there are none (an older node, a database without change streams, too many viewers) polling goes on alone.
import { useEffect, useState } from "preact/hooks";
import { call, queryText } from "./api/calls";
import { offers } from "./api/offered";
import { base, isAway, onBack, send } from "./api/send";
import { backOff, usePaused } from "./live";

const AT_MOST_EVERY_MS = 1000;
const AGAIN_MS = 10_000;
const KINDS = ["execution", "job", "leader", "breaker", "alert"];

export interface Changes {
  /** Grows with every change, at most once a second. */
  version: number;
  /** Whether changes are told: then polling may be slow. */
  told: boolean;
}

/** Changes of what matches a filter, such as `{job: "invoices"}`, while somebody looks. */
export function useChanges(filter: Readonly<Record<string, string>>): Changes {
  const [version, setVersion] = useState(0);
  const [told, setTold] = useState(false);
  const paused = usePaused();
  const visible = useVisible();
  const query = queryText(filter);
  useEffect(() => {
    if (paused || !visible || !offers("/events") || typeof EventSource === "undefined") return undefined;
    let source: EventSource | undefined;
    let timer = 0;
    let again = 0;
    let failures = 0;
    const change = () => {
      if (timer) return;
      timer = window.setTimeout(() => {
        timer = 0;
        setVersion((n) => n + 1);
      }, AT_MOST_EVERY_MS);
    };
    const open = () => {
      clearTimeout(again);
      const opened = new EventSource(`${base}/events${query}`);
      source = opened;
      opened.onopen = () => {
        failures = 0;
        setTold(true);
      };
      // The browser connects again by itself, unless the answer was an error (of a proxy, or for want of a key): then it
      // has given up.
      opened.onerror = () => {
        setTold(false);
        // Whether it was the stream that ended or the node: the page says so at once.
        if (!isAway()) void send(call("get", "/session")).catch(() => undefined);
        if (opened.readyState === EventSource.CLOSED) again = window.setTimeout(() => isAway() || open(), backOff(++failures, AGAIN_MS));
      };
      opened.onmessage = change;
      for (const kind of KINDS) opened.addEventListener(kind, change);
      opened.addEventListener("closing", () => setTold(false));
    };
    const stopHearing = onBack(() => source?.readyState === EventSource.CLOSED && open());
    open();
    return () => {
      clearTimeout(timer);
      clearTimeout(again);
      stopHearing();
      source?.close();
      setTold(false);
    };
  }, [query, paused, visible]);
  return { version, told };
}

function useVisible(): boolean {
  const [visible, setVisible] = useState(!document.hidden);
  useEffect(() => {
    const follow = () => setVisible(!document.hidden);
    document.addEventListener("visibilitychange", follow);
    return () => document.removeEventListener("visibilitychange", follow);
  }, []);
  return visible;
}
