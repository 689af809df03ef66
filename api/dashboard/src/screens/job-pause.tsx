// A pause, with an end and a reason if wanted.
import { useState } from "preact/hooks";
import { loose } from "../api/loose";
import { Action } from "../ui/action";
import { Field } from "../ui/parts";

export function PauseAction({ jobId, name, onDone }: { jobId: string; name: string; onDone: () => void }) {
  const [until, setUntil] = useState("");
  const [reason, setReason] = useState("");
  const terms = { ...(until ? { until: new Date(until).toISOString() } : {}), ...(reason ? { reason } : {}) };
  const call = loose("post", `/jobs/${encodeURIComponent(jobId)}/pause`, Object.keys(terms).length ? { body: terms } : {});
  return (
    <Action label="Pause" title={`Pause ${name}`} call={call} done={() => `${name} is paused.`} onDone={onDone}>
      <p>From a second after the answer nothing is sent, retries included. What falls due during the pause is not caught up.</p>
      <Field label="Until (your time)" hint="It goes on by itself then; without an end it waits for Resume.">
        <input type="datetime-local" value={until} onInput={(e) => setUntil(e.currentTarget.value)} />
      </Field>
      <Field label="Reason"><input value={reason} maxLength={200} onInput={(e) => setReason(e.currentTarget.value)} /></Field>
    </Action>
  );
}
