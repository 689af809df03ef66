// When a job runs: on a schedule, within bounds and without some days; or after each run of another job.
import { useRef, useState } from "preact/hooks";
import { withField, type Definition } from "../definition";
import { Choice, Line, Numeric, type Scope } from "./editor-fields";

const ZONES = typeof Intl.supportedValuesOf === "function" ? ["UTC", ...Intl.supportedValuesOf("timeZone")] : ["UTC"];
/** What a job that runs after another one cannot have. */
const OF_SCHEDULES = ["schedule", "spreadSeconds", "calendar", "startAt", "endAt", "deleteAfterRun"] as const;

export function When({ of, calendars }: { of: Scope; calendars: readonly string[] }) {
  const [chained, setChained] = useState(of.value["after"] !== undefined);
  const kept = useRef<Definition>({});
  const choose = (after: boolean) => {
    if (after === chained) return;
    setChained(after);
    const names = after ? OF_SCHEDULES : (["after"] as const);
    const leaves: Definition = {};
    let next = of.value;
    for (const name of names) {
      if (next[name] !== undefined) leaves[name] = next[name];
      next = withField(next, name, undefined);
    }
    of.change({ ...next, ...kept.current });
    kept.current = leaves;
  };
  return (
    <>
      <div class="segments wide" role="group" aria-label="What makes it run">
        <button type="button" aria-pressed={!chained} onClick={() => choose(false)}>At its times</button>
        <button type="button" aria-pressed={chained} onClick={() => choose(true)}>After another job</button>
      </div>
      {chained ? <After of={of.within("after")} /> : <Times of={of} calendars={calendars} />}
    </>
  );
}

function After({ of }: { of: Scope }) {
  return (
    <>
      <Line of={of} name="jobId" label="Runs after the job" hint="Its id." />
      <Choice of={of} name="on" label="When that one has" options={[["succeeded", "succeeded"], ["failed", "failed"], ["any", "ended, however it did"]]} />
    </>
  );
}

function Times({ of, calendars }: { of: Scope; calendars: readonly string[] }) {
  const calendar = of.within("calendar");
  return (
    <>
      <Line of={of} name="schedule" label="Schedule" hint="Six fields with seconds first, @hourly, @every 90s, @at 2026-12-01T10:00:00Z" class="mono" />
      <Line of={of} name="timezone" label="Time zone" list="zones" placeholder="UTC" />
      <Line of={of} name="startAt" label="Not before" hint="A time such as 2026-12-01T10:00:00Z." />
      <Line of={of} name="endAt" label="Not after" />
      <Line of={calendar} name="name" label="Calendar" hint="Its days are left out." list="calendars" />
      {Boolean(calendar.value["name"]) && <Choice of={calendar} name="onExcluded" label="On a day that is left out" options={[["skip", "it does not run"], ["nextIncluded", "it runs on the next day"], ["previousIncluded", "it runs on the day before"]]} />}
      <Numeric of={of} name="spreadSeconds" label="Spread (s)" usual={0} />
      <datalist id="zones">{ZONES.map((z) => <option key={z} value={z} />)}</datalist>
      <datalist id="calendars">{calendars.map((c) => <option key={c} value={c} />)}</datalist>
    </>
  );
}
