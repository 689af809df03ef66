// The fields of a job, in the order in which one thinks of them. Each shows the server's fault beside it; what few jobs have is
// folded away until it is there, or at fault.
import { useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { call } from "../api/calls";
import type { Fault } from "../api/send";
import { bodyText, readBody, type Definition } from "../definition";
import { useLive } from "../live";
import { Field } from "../ui/parts";
import { Check, Choice, HeaderLines, Line, Numeric, scopeOf, SecretLine, WordsLine, type Scope } from "./editor-fields";
import { Alerts, CallbackFields } from "./editor-follow";
import { When } from "./editor-when";

interface FormProps {
  value: Definition;
  onChange: (value: Definition) => void;
  faults: readonly Fault[];
  /** The chosen id of a new job; undefined while an old one is changed. */
  newId: string | undefined;
  onNewId: (id: string) => void;
}

export function EditorForm({ value, onChange, faults, newId, onNewId }: FormProps) {
  const of = scopeOf(value, onChange, faults);
  const calendars = useLive(call("get", "/calendars"), 0);
  const channels = useLive(call("get", "/channels"), 0);
  return (
    <form class="form" onSubmit={(e) => e.preventDefault()}>
      <Line of={of} name="name" label="Name" />
      {newId !== undefined ? (
        <Field label="Id" hint="Generated if empty; it cannot be changed later." fault={of.fault("jobId")}>
          <input value={newId} spellcheck={false} pattern="[A-Za-z0-9_\-]{1,64}" onInput={(e) => onNewId(e.currentTarget.value)} />
        </Field>
      ) : <Queue of={of} />}
      <When of={of} calendars={calendars.data?.items.map((c) => c.name) ?? []} />
      <Line of={of} name="api" label="Target URL" hint="Gets a POST." wide type="url" placeholder="https://api.example.com/webhook" />
      <HeaderLines of={of} label="Headers" />
      <Body value={value["body"]} onChange={(b) => of.set("body", b)} fault={of.fault("body")} />
      <WordsLine of={of} name="tags" label="Tags" hint="Separated by commas." wide />
      <Line of={of} name="description" label="Description" wide />
      <Retries of={of} />
      <Numeric of={of} name="timeoutSeconds" label="Timeout (s)" usual={30} />
      <Choice of={of} name="overlap" label="While the run before has not ended" options={[["allow", "allow"], ["skip", "skip"]]} />
      <Numeric of={of} name="maxPerSecond" label="At most per second" usual="no limit" />
      <Numeric of={of} name="maxConcurrent" label="At most at once" usual="no limit" />
      {newId !== undefined && <Queue of={of} />}
      <SecretLine of={of} name="signingSecret" label="Signing secret" hint="Write-only: the stored one is kept if this is empty." wide />
      <Group of={of} title="What it sends and what counts as success" names={["auth", "templates", "successCodes", "previousSigningSecret"]}><Sending of={of} /></Group>
      <Group of={of} title="After an outage" names={["catchUp", "catchUpWindowSeconds"]}>
        <Choice of={of} name="catchUp" label="Catch-up" options={[["all", "all that was missed"], ["latest", "the latest one"], ["none", "nothing"]]} />
        <Numeric of={of} name="catchUpWindowSeconds" label="As far back as (s)" usual={3600} />
      </Group>
      <Group of={of} title="Callbacks" names={["onSuccess", "onFailure"]}>
        <CallbackFields of={of} name="onSuccess" title="When it has succeeded" />
        <CallbackFields of={of} name="onFailure" title="When it has failed for good" />
      </Group>
      <Group of={of} title="Alerts of its own" names={["alerts"]}><Alerts of={of.within("alerts")} whole={of.faultOfWhole("alerts")} /></Group>
      <Group of={of} title="How long it is kept" names={["retentionDays", "completedRetentionDays", "deleteAfterRun"]}>
        <Numeric of={of} name="retentionDays" label="Its executions (days)" usual="as the nodes say" />
        <Numeric of={of} name="completedRetentionDays" label="Itself, once completed (days)" usual="as the nodes say" />
        <Check of={of} name="deleteAfterRun" label="Delete it after its run (@at)" />
      </Group>
      {newId !== undefined && (
        <div class="checked wide">
          <label class="check"><input type="checkbox" checked={value["state"] === "paused"} onChange={(e) => of.set("state", e.currentTarget.checked ? "paused" : undefined)} /> Begin paused</label>
        </div>
      )}
      <datalist id="channels">{channels.data?.items.map((c) => <option key={c.name} value={c.name} />)}</datalist>
    </form>
  );
}

function Queue({ of }: { of: Scope }) {
  return <Line of={of} name="queue" label="Queue" hint="Limits that jobs share." />;
}

/** Fields that are open only while one of them is set, or at fault, or a reader opens them. */
function Group({ of, title, names, children }: { of: Scope; title: string; names: readonly string[]; children: ComponentChildren }) {
  const [open, setOpen] = useState(() => names.some((n) => of.value[n] !== undefined && !USUAL.get(n)?.includes(JSON.stringify(of.value[n]))));
  const atFault = names.some((n) => of.fault(n));
  return (
    <details class="group wide" open={open || atFault} onToggle={(e) => setOpen(e.currentTarget.open)}>
      <summary>{title}</summary>
      <div class="form">{children}</div>
    </details>
  );
}

/** What stored jobs have without anybody having chosen it. */
const USUAL = new Map([["catchUp", ['"all"']], ["catchUpWindowSeconds", ["3600"]], ["templates", ["true"]], ["deleteAfterRun", ["false"]]]);

function Retries({ of }: { of: Scope }) {
  const retry = of.within("retry");
  return (
    <fieldset class="wide">
      <legend>Retries</legend>
      <div class="form">
        <Numeric of={retry} name="maxAttempts" label="Attempts" usual={5} />
        <Numeric of={retry} name="initialDelaySeconds" label="First wait (s)" usual={1} />
        <Numeric of={retry} name="multiplier" label="Multiplier" usual={2} />
        <Numeric of={retry} name="maxDelaySeconds" label="Longest wait (s)" usual={300} />
        <Numeric of={retry} name="jitter" label="Jitter (0 to 1)" usual={0.2} />
        <Numeric of={retry} name="maxAgeSeconds" label="None later than (s)" usual="no end" />
      </div>
    </fieldset>
  );
}

function Sending({ of }: { of: Scope }) {
  const auth = of.within("auth");
  const [type, setType] = useState(String(auth.value["type"] ?? ""));
  const choose = (to: string) => {
    setType(to);
    of.set("auth", to ? { type: to } : undefined);
  };
  return (
    <>
      <Field label="Authorization" fault={of.faultOfWhole("auth")}>
        <select value={type} onChange={(e) => choose(e.currentTarget.value)}>
          <option value="">none, or in the headers</option><option value="basic">basic: user and password</option><option value="bearer">bearer: a token</option>
        </select>
      </Field>
      {type === "basic" && <Line of={auth} name="username" label="User" autocomplete="off" />}
      {type === "basic" && <SecretLine of={auth} name="password" label="Password" />}
      {type === "bearer" && <SecretLine of={auth} name="token" label="Token" />}
      <WordsLine of={of} name="successCodes" label="Statuses that are a success" hint="Such as 200, 404, 3xx. Without any: 2xx." read={(word) => (/^\d+$/.test(word) ? Number(word) : word)} />
      <Check of={of} name="templates" label="Fill in {{jobId}} and other such names" usual />
      <SecretLine of={of} name="previousSigningSecret" label="Previous secret" hint="Signs too, while receivers change to the new one." wide />
    </>
  );
}

function Body({ value, onChange, fault }: { value: unknown; onChange: (b: unknown) => void; fault: string | undefined }) {
  const [text, setText] = useState(() => bodyText(value));
  return (
    <Field label="Body" hint="JSON, or any text." fault={fault} wide>
      <textarea rows={5} spellcheck={false} value={text} onInput={(e) => (setText(e.currentTarget.value), onChange(readBody(e.currentTarget.value)))} />
    </Field>
  );
}
