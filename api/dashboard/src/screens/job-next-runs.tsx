// When a job runs: in words, and its next ten runs in its time zone and in the reader's.
import { call } from "../api/calls";
import type { Job } from "../api/types";
import { clock, dayOf, offsetOf, ownZone } from "../format";
import { useLive } from "../live";
import { href } from "../route";
import { Time } from "../ui/now";
import { Card, ProblemNote } from "../ui/parts";

export function NextRuns({ job }: { job: Job }) {
  // The words and the remarks; the times are the job's own, which know where its intervals began and what bounds it.
  const calendar = job.calendar ? { calendar: job.calendar } : {};
  const preview = useLive(job.schedule ? call("post", "/schedules/preview", { body: { schedule: job.schedule, timezone: job.timezone, count: 10, ...calendar } as never }) : null, 30_000);
  const runs = job.state === "active" ? job.nextRuns : (preview.data?.next ?? []);
  const own = ownZone();
  const two = own !== job.timezone;
  return (
    <Card title="Schedule" aside={<code>{job.schedule ?? "after"}</code>}>
      <p class="words">{job.after ? `It runs after each execution of ${job.after.jobId} that ended: ${job.after.on}.` : preview.data?.description ?? "…"}</p>
      {preview.data?.warnings.map((text) => <p key={text} class="remark"><span aria-hidden="true">⚠</span> {text}</p>)}
      <ProblemNote problem={preview.problem} />
      {job.calendar && <p class="faint">Without the days of the calendar <a href={href(["calendars"])}>{job.calendar.name}</a>.</p>}
      {job.startAt && <p class="faint">Not before <Time at={job.startAt} exact />.</p>}
      {job.endAt && <p class="faint">Not after <Time at={job.endAt} exact />.</p>}
      {job.state === "active" && job.schedule && runs.length === 0 && <p class="faint">No run is left.</p>}
      {job.state !== "active" && <p class="remark">The job is {job.state}: nothing is sent at these times.</p>}
      <div class="table-wrap runs">
        <table>
          <caption class="hidden">The next ten runs</caption>
          <thead><tr><th scope="col">In {job.timezone}</th>{two && <th scope="col">In {own}</th>}<th scope="col" class="num narrow-out">From now</th></tr></thead>
          <tbody>
            {runs.map((at) => {
              const ms = Date.parse(at);
              return (
                <tr key={at}>
                  <td>{dayOf(ms, job.timezone)} <b>{clock(ms, ms, job.timezone)}</b> <span class="faint">{job.timezone === "UTC" ? "" : offsetOf(ms, job.timezone)}</span></td>
                  {two && <td>{dayOf(ms) === dayOf(ms, job.timezone) ? "" : `${dayOf(ms)} `}{clock(ms, ms)}</td>}
                  <td class="num narrow-out"><a href={href(["jobs", job.jobId], { at })} title="Explain"><Time at={at} /></a></td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </Card>
  );
}
