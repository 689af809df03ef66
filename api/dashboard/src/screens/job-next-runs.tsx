// When a job runs: in words, and its next ten runs in its time zone and in the reader's.
import { call } from "../api/calls";
import type { Job } from "../api/types";
import { clock, dayOf, ownZone } from "../format";
import { useLive } from "../live";
import { Time } from "../ui/now";
import { Card, ProblemNote } from "../ui/parts";

export function NextRuns({ job }: { job: Job }) {
  const preview = useLive(job.schedule ? call("post", "/schedules/preview", { body: { schedule: job.schedule, timezone: job.timezone, count: 10 } }) : null, 30_000);
  const runs = preview.data?.next ?? job.nextRuns;
  const own = ownZone();
  const two = own !== job.timezone;
  return (
    <Card title="Schedule" aside={<code>{job.schedule ?? "after"}</code>}>
      <p class="words">{job.after ? `It runs after each execution of ${job.after.jobId} that ended: ${job.after.on}.` : preview.data?.description ?? "…"}</p>
      {preview.data?.warnings.map((text) => <p key={text} class="remark"><span aria-hidden="true">⚠</span> {text}</p>)}
      <ProblemNote problem={preview.problem} />
      {job.state !== "active" && <p class="remark">The job is {job.state}: nothing is sent at these times.</p>}
      <div class="table-wrap runs">
        <table>
          <caption class="hidden">The next ten runs</caption>
          <thead><tr><th scope="col">In {job.timezone}</th>{two && <th scope="col">In {own}</th>}<th scope="col" class="num">From now</th></tr></thead>
          <tbody>
            {runs.map((at) => {
              const ms = Date.parse(at);
              const offset = /([+-]\d\d:\d\d|Z)$/.exec(at)?.[1] ?? "";
              return (
                <tr key={at}>
                  <td>{dayOf(ms, job.timezone)} <b>{clock(ms, ms, job.timezone)}</b> <span class="faint">{offset === "Z" || job.timezone === "UTC" ? "" : offset}</span></td>
                  {two && <td>{dayOf(ms) === dayOf(ms, job.timezone) ? "" : `${dayOf(ms)} `}{clock(ms, ms)}</td>}
                  <td class="num"><Time at={at} /></td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </Card>
  );
}
