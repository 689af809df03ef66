// A new or changed job: as a form or as JSON, with a preview of when it would run, and the same as curl.
import { useState } from "preact/hooks";
import { call, type Call } from "../api/calls";
import { Problem } from "../api/send";
import { definitionOf, mergePatch, withoutSigning, type Definition } from "../definition";
import { useLive } from "../live";
import { go, href, type Route } from "../route";
import { useMay } from "../session";
import { CurlNote, SendButton } from "../ui/action";
import { Field, Head, ProblemNote, Skeleton } from "../ui/parts";
import { toast } from "../ui/toast";
import { EditorForm } from "./editor-form";
import { EditorPreview } from "./editor-preview";

const EXAMPLE: Definition = { schedule: "0 0 3 * * *", timezone: "UTC", api: "", type: "ATLEAST_ONCE" };

/** `#/new`, `#/new?from=ID` for a copy, `#/jobs/ID/edit`. */
export function EditorScreen({ route }: { route: Route }) {
  const editing = route.path[0] === "jobs" ? route.path[1] : undefined;
  const source = editing ?? route.query["from"];
  const job = useLive(source ? call("get", "/jobs/{jobId}", { path: { jobId: source } }) : null, 0);
  const may = useMay("write");
  if (!may) return <Head title="Edit a job" note="Your key may only read." />;
  if (source && !job.data) return <><Head title="Edit a job" /><ProblemNote problem={job.problem} />{!job.problem && <Skeleton />}</>;
  const stored = job.data ? definitionOf(job.data as unknown as Record<string, unknown>) : EXAMPLE;
  if (editing || !source) return <Editor key={source ?? ""} before={stored} jobId={editing} revision={job.data?.revision} copyOf={undefined} signed={false} />;
  const { copy, signed } = withoutSigning(stored);
  return <Editor key={source} before={copy} jobId={undefined} revision={undefined} copyOf={source} signed={signed} />;
}

interface EditorProps {
  before: Definition;
  jobId: string | undefined;
  revision: number | undefined;
  copyOf: string | undefined;
  /** Whether what it is a copy of has signing secrets, which a copy does not get. */
  signed: boolean;
}

/** The request that saves: a patch of what differs, or a new job. */
export function saveCall(before: Definition, after: Definition, jobId: string | undefined, newId: string, revision: number | undefined): Call<{ jobId: string }> {
  if (jobId) {
    return call("patch", "/jobs/{jobId}", { path: { jobId }, body: mergePatch(before, after) as never, headers: revision ? { "If-Match": `"${revision}"` } : {} }) as never;
  }
  if (newId) return call("put", "/jobs/{jobId}", { path: { jobId: newId }, body: after as never, headers: { "If-None-Match": "*" } }) as never;
  return call("post", "/jobs", { body: after as never }) as never;
}

/** Control (or Command) and Enter, from any field: the button that saves is before all of them. */
function saveByKeys(e: KeyboardEvent): void {
  if (e.key !== "Enter" || !(e.ctrlKey || e.metaKey) || e.isComposing) return;
  e.preventDefault();
  document.querySelector<HTMLButtonElement>("main .head .primary:not(:disabled)")?.click();
}

function Editor({ before, jobId, revision, copyOf, signed }: EditorProps) {
  const [after, setAfter] = useState<Definition>(copyOf ? { ...before, name: `${String(before["name"] ?? copyOf)} (copy)` } : before);
  const [newId, setNewId] = useState("");
  const [json, setJson] = useState<string>();
  const [problem, setProblem] = useState<Problem>();
  const save = saveCall(before, after, jobId, newId, revision);
  const title = jobId ? `Edit ${String(before["name"] ?? jobId)}` : copyOf ? `Copy of ${copyOf}` : "New job";
  const unread = json !== undefined && parsed(json) === undefined;
  const done = (content: { jobId: string }) => {
    toast(jobId ? "The change is saved." : "The job is created.");
    go(href(["jobs", jobId ?? content.jobId]));
  };
  const write = (text: string) => {
    setJson(text);
    const value = parsed(text);
    if (value) setAfter(value);
  };
  return (
    <div onKeyDown={saveByKeys}>
      <p class="crumbs"><a href="#/jobs">Jobs</a> / {jobId ? <a href={href(["jobs", jobId])}>{jobId}</a> : "new"}</p>
      <Head title={title} note="Control and Enter, or Command and Enter, save from any field.">
        <div class="segments" role="group" aria-label="Edit as">
          <button type="button" aria-pressed={json === undefined} onClick={() => setJson(undefined)}>Form</button>
          <button type="button" aria-pressed={json !== undefined} onClick={() => setJson(JSON.stringify(after, null, 2))}>JSON</button>
        </div>
        <a class="button" href={jobId ? href(["jobs", jobId]) : "#/jobs"}>Cancel</a>
        <SendButton call={save} label={jobId ? "Save" : "Create"} disabled={unread} onDone={done} onProblem={setProblem} />
      </Head>
      {signed && <p class="note">Requests of {copyOf} are signed. A copy does not get its secrets: give a signing secret, or what it sends is not signed.</p>}
      <ProblemNote problem={problem} />
      <div class="editor">
        <div class="card">
          {json === undefined ? (
            <EditorForm value={after} onChange={setAfter} faults={problem?.faults ?? []} newId={jobId ? undefined : newId} onNewId={setNewId} />
          ) : (
            <Field label="The definition as JSON" fault={unread ? "This is not JSON yet." : undefined}>
              <textarea class="json" spellcheck={false} value={json} onInput={(e) => write(e.currentTarget.value)} />
            </Field>
          )}
          <CurlNote call={save} />
        </div>
        <EditorPreview value={after} jobId={jobId} />
      </div>
    </div>
  );
}

function parsed(text: string): Definition | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Definition) : undefined;
  } catch {
    return undefined;
  }
}
