// The fields of a job. Each shows the server's fault beside it.
import { useState } from "preact/hooks";
import type { Fault } from "../api/send";
import { bodyText, headerLines, readBody, readHeaders, withField, type Definition } from "../definition";
import { Field } from "../ui/parts";

interface FormProps {
  value: Definition;
  onChange: (value: Definition) => void;
  faults: readonly Fault[];
  /** The chosen id of a new job; undefined while an old one is changed. */
  newId: string | undefined;
  onNewId: (id: string) => void;
}

const ZONES = typeof Intl.supportedValuesOf === "function" ? ["UTC", ...Intl.supportedValuesOf("timeZone")] : ["UTC"];
const RETRY = [["maxAttempts", "Attempts", 5], ["initialDelaySeconds", "First wait (s)", 1], ["multiplier", "Multiplier", 2], ["maxDelaySeconds", "Longest wait (s)", 300]] as const;

export function EditorForm({ value, onChange, faults, newId, onNewId }: FormProps) {
  const set = (name: string, to: unknown) => onChange(withField(value, name, to));
  const fault = (name: string) => faults.find((f) => f.path === name || f.path.startsWith(`${name}.`) || f.path.startsWith(`${name}[`))?.message;
  const text = (name: string) => String(value[name] ?? "");
  const line = (name: string, label: string, hint?: string, wide = false, extra: Record<string, unknown> = {}) => (
    <Field label={label} hint={hint} fault={fault(name)} wide={wide}>
      <input value={text(name)} spellcheck={false} onInput={(e) => set(name, e.currentTarget.value)} {...extra} />
    </Field>
  );
  const number = (name: string, label: string, placeholder: string) => (
    <Field label={label} fault={fault(name)}>
      <input type="number" step="any" placeholder={placeholder} value={text(name)} onInput={(e) => set(name, e.currentTarget.value === "" ? undefined : Number(e.currentTarget.value))} />
    </Field>
  );
  const choice = (name: string, label: string, options: readonly string[]) => (
    <Field label={label} fault={fault(name)}>
      <select value={text(name) || options[0]} onChange={(e) => set(name, e.currentTarget.value)}>
        {options.map((o) => <option key={o} value={o}>{o}</option>)}
      </select>
    </Field>
  );
  const retry = (value["retry"] ?? {}) as Definition;
  return (
    <form class="form" onSubmit={(e) => e.preventDefault()}>
      {line("name", "Name")}
      {newId !== undefined ? (
        <Field label="Id" hint="Generated if empty; it cannot be changed later." fault={fault("jobId")}>
          <input value={newId} spellcheck={false} pattern="[A-Za-z0-9_\-]{1,64}" onInput={(e) => onNewId(e.currentTarget.value)} />
        </Field>
      ) : line("queue", "Queue", "Limits that jobs share.")}
      {line("schedule", "Schedule", "Six fields with seconds first, @hourly, @every 90s, @at 2026-12-01T10:00:00Z", false, { class: "mono" })}
      {line("timezone", "Time zone", undefined, false, { list: "zones", placeholder: "UTC" })}
      <datalist id="zones">{ZONES.map((z) => <option key={z} value={z} />)}</datalist>
      {line("api", "Target URL", "Gets a POST.", true, { type: "url", placeholder: "https://api.example.com/webhook" })}
      <Headers value={value["headers"]} onChange={(h) => set("headers", h)} fault={fault("headers")} />
      <Body value={value["body"]} onChange={(b) => set("body", b)} fault={fault("body")} />
      <Field label="Tags" hint="Separated by commas." fault={fault("tags")} wide>
        <Words value={(value["tags"] as string[] | undefined) ?? []} onChange={(tags) => set("tags", tags)} />
      </Field>
      {line("description", "Description", undefined, true)}
      <fieldset class="wide">
        <legend>Retries</legend>
        <div class="form">
          {RETRY.map(([name, label, usual]) => (
            <Field key={name} label={label} fault={fault(`retry.${name}`)}>
              <input type="number" step="any" placeholder={String(usual)} value={String(retry[name] ?? "")} onInput={(e) => set("retry", withField(retry, name, e.currentTarget.value === "" ? undefined : Number(e.currentTarget.value)))} />
            </Field>
          ))}
        </div>
      </fieldset>
      {number("timeoutSeconds", "Timeout (s)", "30")}
      {number("spreadSeconds", "Spread (s)", "0")}
      {choice("catchUp", "Catch-up after an outage", ["all", "latest", "none"])}
      {choice("overlap", "While the run before has not ended", ["allow", "skip"])}
      {number("maxPerSecond", "At most per second", "no limit")}
      {number("maxConcurrent", "At most at once", "no limit")}
      <Field label="Signing secret" hint="Write-only: the stored one is kept if this is empty." fault={fault("signingSecret")} wide>
        <input type="password" autocomplete="new-password" value={text("signingSecret")} onInput={(e) => set("signingSecret", e.currentTarget.value)} />
      </Field>
    </form>
  );
}

function Headers({ value, onChange, fault }: { value: unknown; onChange: (h: unknown) => void; fault: string | undefined }) {
  const [text, setText] = useState(() => headerLines(value));
  const [before] = useState(value);
  return (
    <Field label="Headers" hint="One a line, as Name: value. A secret keeps its value as long as its line stays." fault={fault} wide>
      <textarea rows={3} spellcheck={false} value={text} onInput={(e) => (setText(e.currentTarget.value), onChange(readHeaders(e.currentTarget.value, before)))} />
    </Field>
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

/** Words separated by commas; a comma at the end stays while it is typed. */
export function Words({ value, onChange }: { value: readonly string[]; onChange: (words: string[]) => void }) {
  const [text, setText] = useState(() => value.join(", "));
  return <input value={text} onInput={(e) => (setText(e.currentTarget.value), onChange(e.currentTarget.value.split(",").map((w) => w.trim()).filter(Boolean)))} />;
}
