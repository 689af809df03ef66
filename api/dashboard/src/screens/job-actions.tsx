// What can be done with one job.
import { call } from "../api/calls";
import { offers } from "../api/offered";
import type { Job } from "../api/types";
import { go, href } from "../route";
import { useMay } from "../session";
import { Action } from "../ui/action";
import { BackfillButton } from "./job-backfill";
import { PauseAction } from "./job-pause";

export function JobActions({ job, onChange }: { job: Job; onChange: () => void }) {
  const may = useMay("write");
  const path = { jobId: job.jobId };
  const name = job.name || job.jobId;
  if (!may) return null;
  return (
    <>
      <Action
        label="Run now" title={`Run ${name} now`} primary
        call={call("post", "/jobs/{jobId}/trigger", { path })}
        done={(content) => ({ text: content?.note ?? "It will be sent.", link: href(["executions", content?.executionId ?? ""]) })}
        onDone={onChange}
      >
        <p>One more execution is sent at once, independent of the schedule{job.state === "active" ? "" : `, although the job is ${job.state}`}.</p>
        {job.overlap === "skip" && <p>The job has <code>overlap: skip</code>: while another run has not ended, this one is skipped.</p>}
      </Action>
      {job.state === "active" && offers("/jobs/{jobId}/revisions") && <PauseAction jobId={job.jobId} name={name} onDone={onChange} />}
      {job.state === "active" && !offers("/jobs/{jobId}/revisions") && (
        <Action label="Pause" title={`Pause ${name}`} call={call("post", "/jobs/{jobId}/pause", { path })} done={() => `${name} is paused.`} onDone={onChange}>
          <p>From a second after the answer nothing is sent, retries included. What falls due during the pause is not caught up.</p>
        </Action>
      )}
      {job.state === "paused" && (
        <Action label="Resume" title={`Resume ${name}`} call={call("post", "/jobs/{jobId}/resume", { path })} done={() => `${name} goes on.`} onDone={onChange}>
          <p>The job runs by its schedule again. What came due before the pause is sent.</p>
        </Action>
      )}
      {offers("/jobs/{jobId}/backfill") && <BackfillButton jobId={job.jobId} onDone={onChange} />}
      <a class="button" href={href(["jobs", job.jobId, "edit"])}>Edit</a>
      <a class="button" href={href(["new"], { from: job.jobId })}>Clone</a>
      <Action
        label="Delete" title={`Delete ${name}`} danger call={call("delete", "/jobs/{jobId}", { path })}
        done={() => `${name} is deleted.`} onDone={() => go("#/jobs")}
      >
        <p>Executions that have not ended are cancelled, retries included. The history stays until its retention ends.</p>
      </Action>
    </>
  );
}
