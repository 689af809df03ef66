// The maintenance windows around now, asked for seldom: they change seldom.
import { useEffect, useState } from "preact/hooks";
import { call } from "../api/calls";
import { send } from "../api/send";
import { nowMs } from "../clock";
import { useLive } from "../live";
import { bandsOf, type Band } from "./windows";

const EVERY_MS = 60_000;
const MOST_RECURRING = 10;
const BEGINS = 20;

export function useWindows(): readonly Band[] {
  const list = useLive(call("get", "/windows"), EVERY_MS);
  const [bands, setBands] = useState<readonly Band[]>([]);
  const items = list.data?.items ?? [];
  useEffect(() => {
    let here = true;
    const recurring = items.filter((w) => w.schedule).slice(0, MOST_RECURRING);
    const begins = recurring.map((w) =>
      send(call("post", "/schedules/preview", { body: { schedule: w.schedule ?? "", timezone: w.timezone, count: BEGINS } as never })).then((p) => [w.name, (p?.next ?? []).map((at) => Date.parse(at))] as const, () => [w.name, []] as const),
    );
    void Promise.all(begins).then((pairs) => {
      const byName = new Map<string, readonly number[]>(pairs);
      if (here) setBands(items.flatMap((w) => bandsOf(w, byName.get(w.name) ?? [], nowMs())));
    });
    return () => {
      here = false;
    };
  }, [list.data]);
  return bands;
}
