// What a job sends, where to, and how often it tries.
import type { Job } from "../api/types";
import { duration, hostOf } from "../format";
import { href } from "../route";
import { Card, Code, Facts } from "../ui/parts";
import { RetryLine } from "../ui/retry-line";

/** A stored value as text; the API never shows a secret. */
export function shown(value: unknown): string {
  if (typeof value === "object" && value !== null && "secret" in value) return "•••••• (secret)";
  return typeof value === "string" ? value : JSON.stringify(value);
}

export function Target({ job }: { job: Job }) {
  const headers = Object.entries(job.headers ?? {});
  const hasBody = job.body !== null && job.body !== undefined;
  return (
    <Card title="Target" aside={<a href={href(["jobs"], { host: hostOf(job.api) })}>Jobs of this host</a>}>
      <p class="url"><b>POST</b> <code>{job.api}</code></p>
      <Facts
        items={[
          ["Timeout", `${job.timeoutSeconds} s`],
          ["Success", job.successCodes ? job.successCodes.join(", ") : "2xx"],
          ["Catch-up", `${job.catchUp}, ${duration(job.catchUpWindowSeconds * 1000)}`],
          ["Overlap", job.overlap],
          ["Spread", job.spreadSeconds ? `${job.spreadSeconds} s` : "none"],
          ["Queue", job.queue ? <a href={href(["queues"])}>{job.queue}</a> : "none"],
        ]}
      />
      <h3>Retries</h3>
      <RetryLine retry={job.retry} />
      {headers.length > 0 && (
        <>
          <h3>Headers</h3>
          <ul class="plain mono">{headers.map(([name, value]) => <li key={name}>{name}: {shown(value)}</li>)}</ul>
        </>
      )}
      {hasBody && (
        <>
          <h3>Body</h3>
          <Code text={typeof job.body === "string" ? job.body : JSON.stringify(job.body, null, 2)} label="The body" />
        </>
      )}
    </Card>
  );
}
