// The outcome strip of a job in a list: asked for when its row comes into view, a few at a time, and kept for a while.
import { useEffect, useRef, useState } from "preact/hooks";
import { call } from "../api/calls";
import { send } from "../api/send";
import type { Execution } from "../api/types";
import { Strip } from "./state";

const AT_ONCE = 3;
const KEPT_MS = 120_000;
const MOST_KEPT = 500;
const kept = new Map<string, { at: number; items: readonly Execution[] }>();
const waiting: (() => Promise<void>)[] = [];
let running = 0;

function work(): void {
  while (running < AT_ONCE) {
    const next = waiting.shift();
    if (!next) return;
    running++;
    void next().finally(() => {
      running--;
      work();
    });
  }
}

function fetchStrip(jobId: string, wanted: () => boolean): Promise<readonly Execution[] | undefined> {
  return new Promise((resolve) => {
    waiting.push(async () => {
      if (!wanted()) return resolve(undefined);
      try {
        const items = await send(call("get", "/jobs/{jobId}/executions", { path: { jobId }, query: { limit: 30 } }));
        kept.set(jobId, { at: Date.now(), items });
        if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value as string);
        resolve(items);
      } catch {
        resolve(undefined);
      }
    });
    work();
  });
}

export function LazyStrip({ jobId, version }: { jobId: string; version: string }) {
  const element = useRef<HTMLSpanElement>(null);
  const [items, setItems] = useState(() => kept.get(jobId)?.items);
  const [seen, setSeen] = useState(false);
  useEffect(() => {
    const observer = new IntersectionObserver((entries) => {
      if (entries.some((e) => e.isIntersecting)) setSeen(true);
    });
    if (element.current) observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    const fresh = kept.get(jobId);
    if (!seen || (fresh && Date.now() - fresh.at < KEPT_MS)) return undefined;
    let here = true;
    void fetchStrip(jobId, () => here).then((found) => here && found && setItems(found));
    return () => {
      here = false;
    };
  }, [jobId, seen, version]);
  return <span ref={element} class="lazy-strip"><Strip items={items} /></span>;
}
