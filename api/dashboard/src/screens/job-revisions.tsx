// Earlier definitions of a job, what each changed, and the way back.
import { loose } from "../api/loose";
import { useContext } from "preact/hooks";
import { useLive } from "../live";
import { href } from "../route";
import { SessionContext } from "../session";
import { Action } from "../ui/action";
import { Time } from "../ui/now";
import { Card, ProblemNote } from "../ui/parts";

interface Revision {
  revision: number;
  at: string;
  action: string | null;
  by: { key: string | null; address: string | null; via: string } | null;
  state: string;
  definition: Record<string, unknown>;
}

function content(r: Revision): Record<string, unknown> {
  return { ...r.definition, state: r.state };
}

/** The fields that differ between two revisions, with both values as text. */
export function differences(before: Record<string, unknown>, after: Record<string, unknown>): { name: string; before: string; after: string }[] {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].sort();
  const text = (v: unknown) => (v === undefined || v === null ? "–" : typeof v === "string" ? v : JSON.stringify(v));
  return names.map((name) => ({ name, before: text(before[name]), after: text(after[name]) })).filter((d) => d.before !== d.after);
}

export function Revisions({ jobId, current, onChange }: { jobId: string; current: number; onChange: () => void }) {
  const path = `/jobs/${encodeURIComponent(jobId)}/revisions`;
  const list = useLive(loose<{ items: Revision[] }>("get", path), 0);
  const audit = useContext(SessionContext).scope === "admin";
  const items = list.data?.items ?? [];
  if (list.data && items.length === 0) return null;
  return (
    <Card title="Revisions" aside={audit && <a href={href(["audit"], { object: `job:${jobId}` })}>Who did what with it</a>}>
      <ProblemNote problem={list.problem} />
      {items.map((r, i) => {
        const older = items[i + 1];
        const changes = older ? differences(content(older), content(r)) : [];
        return (
          <details key={r.revision} class="attempt-row">
            <summary>
              <b>{r.revision}</b> <Time at={r.at} /> {r.action?.split(":")[0]} {r.by && <span class="faint">by {r.by.key ?? r.by.address ?? r.by.via}</span>}
              <span class="faint">{older ? changes.map((c) => c.name).join(", ") || "no field changed" : "the first that is kept"}</span>
            </summary>
            {changes.map((c) => (
              <p key={c.name} class="difference"><b>{c.name}</b> <del>{c.before}</del> <ins>{c.after}</ins></p>
            ))}
            {r.revision !== current && (
              <Action small label="Revert to this" title={`Revert to revision ${r.revision}`} call={loose("post", `${path}/${r.revision}/revert`)} done={() => "It is as it was."} onDone={onChange}>
                <p>The job gets the definition of revision {r.revision}, as a new revision. The secrets that it has now stay as they are.</p>
              </Action>
            )}
          </details>
        );
      })}
    </Card>
  );
}
