// Why a job did or did not run at a given time, in sentences.
import { useEffect, useRef, useState } from "preact/hooks";
import { call } from "../api/calls";
import { nowMs } from "../clock";
import { clock } from "../format";
import { useLive } from "../live";
import { changeQuery, href, type Route } from "../route";
import { Card, ProblemNote } from "../ui/parts";
import { StateBadge } from "../ui/state";

export function Explain({ route, jobId }: { route: Route; jobId: string }) {
  const at = route.query["at"];
  const [text, setText] = useState(at ?? "");
  const answer = useLive(call("get", "/jobs/{jobId}/explain", { path: { jobId }, query: { at } }), at ? 0 : 10_000);
  const heading = useRef<HTMLSpanElement>(null);
  const isAnswered = answer.data !== undefined && !answer.loading;
  useEffect(() => setText(at ?? ""), [at]);
  useEffect(() => {
    // A tick of the axis or a run of the list led here: its explanation comes into view.
    if (!at || !isAnswered) return;
    heading.current?.closest(".card")?.scrollIntoView({ block: "start" });
    heading.current?.focus({ preventScroll: true });
  }, [at, isAnswered]);
  const ask = (event: SubmitEvent) => {
    event.preventDefault();
    changeQuery(route, { at: text.trim() || undefined });
  };
  return (
    <Card
      title={<span ref={heading} tabIndex={-1}>Why did it run, or not?</span>}
      aside={
        <form class="inline" onSubmit={ask}>
          <input aria-label="A time (RFC 3339)" placeholder="2026-12-01T10:00:00Z" value={text} onInput={(e) => setText(e.currentTarget.value)} />
          <button type="submit">Explain</button>
          {at && <button type="button" class="quiet" onClick={() => (setText(""), changeQuery(route, { at: undefined }))}>Last and next</button>}
        </form>
      }
    >
      <ProblemNote problem={answer.problem} />
      {answer.data?.explanations.map((e) => (
        <article key={`${e.executionId}${e.scheduledAt}${e.state}`} class="explanation">
          <p><StateBadge state={e.state} /> <b>{e.summary}</b> {e.executionId && <a href={href(["executions", e.executionId])}>Open</a>}</p>
          <ol>
            {e.facts.map((fact, i) => (
              <li key={i}><span class="when">{fact.at ? clock(Date.parse(fact.at), nowMs(), undefined, true) : "now"}</span> {fact.text}</li>
            ))}
          </ol>
        </article>
      ))}
    </Card>
  );
}
