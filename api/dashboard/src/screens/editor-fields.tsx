// Inputs of the editor, each bound to one field of a definition (or of an object within it) and to the server's fault of it.
import { useState } from "preact/hooks";
import type { Fault } from "../api/send";
import { headerLines, readHeaders, withField, withSecret, type Definition } from "../definition";
import { Field } from "../ui/parts";

/** A definition, or an object within one, that inputs read and change. */
export interface Scope {
  value: Definition;
  set: (name: string, to: unknown) => void;
  change: (value: Definition) => void;
  /** The fault of a field, or of what is within it. */
  fault: (name: string) => string | undefined;
  /** The fault of a field as a whole. */
  faultOfWhole: (name: string) => string | undefined;
  within: (name: string) => Scope;
}

export function scopeOf(value: Definition, onChange: (value: Definition) => void, faults: readonly Fault[], path = ""): Scope {
  return {
    value,
    set: (name, to) => onChange(withField(value, name, to)),
    change: onChange,
    fault: (name) => faults.find((f) => f.path === path + name || f.path.startsWith(`${path}${name}.`) || f.path.startsWith(`${path}${name}[`))?.message,
    faultOfWhole: (name) => faults.find((f) => f.path === path + name)?.message,
    within: (name) => {
      const inner = (typeof value[name] === "object" && value[name] !== null ? value[name] : {}) as Definition;
      return scopeOf(inner, (to) => onChange(withField(value, name, Object.keys(to).length > 0 ? to : undefined)), faults, `${path}${name}.`);
    },
  };
}

interface Of {
  of: Scope;
  name: string;
  label: string;
  hint?: string;
  wide?: boolean;
}

export function Line({ of, name, label, hint, wide, ...attributes }: Of & Record<string, unknown>) {
  return (
    <Field label={label} hint={hint} fault={of.fault(name)} wide={wide ?? false}>
      <input value={String(of.value[name] ?? "")} spellcheck={false} onInput={(e) => of.set(name, e.currentTarget.value)} {...attributes} />
    </Field>
  );
}

export function Numeric({ of, name, label, hint, usual }: Of & { usual: string | number }) {
  return (
    <Field label={label} hint={hint} fault={of.fault(name)}>
      <input type="number" step="any" placeholder={String(usual)} value={String(of.value[name] ?? "")} onInput={(e) => of.set(name, e.currentTarget.value === "" ? undefined : Number(e.currentTarget.value))} />
    </Field>
  );
}

/** The first option is what holds without the field. */
export function Choice({ of, name, label, hint, options }: Of & { options: readonly (readonly [string, string])[] }) {
  return (
    <Field label={label} hint={hint} fault={of.fault(name)}>
      <select value={String(of.value[name] ?? options[0]?.[0])} onChange={(e) => of.set(name, e.currentTarget.value)}>
        {options.map(([value, words]) => <option key={value} value={value}>{words}</option>)}
      </select>
    </Field>
  );
}

export function Check({ of, name, label, usual = false }: Of & { usual?: boolean }) {
  const fault = of.fault(name);
  return (
    <div class="checked">
      <label class="check">
        <input type="checkbox" checked={Boolean(of.value[name] ?? usual)} onChange={(e) => of.set(name, e.currentTarget.checked === usual ? undefined : e.currentTarget.checked)} /> {label}
      </label>
      {fault && <span class="fault" role="alert">{fault}</span>}
    </div>
  );
}

/** A secret is only written: one that is stored stays until another one is typed. */
export function SecretLine({ of, name, label, hint, wide }: Of) {
  const [stored] = useState(of.value[name]);
  const given = of.value[name];
  return (
    <Field label={label} hint={hint} fault={of.fault(name)} wide={wide ?? false}>
      <input type="password" autocomplete="new-password" placeholder={typeof stored === "object" && stored ? "kept as it is stored" : undefined} value={typeof given === "string" ? given : ""} onInput={(e) => of.set(name, e.currentTarget.value || stored)} />
    </Field>
  );
}

export function WordsLine({ of, name, label, hint, wide, read }: Of & { read?: (word: string) => unknown }) {
  const words = ((of.value[name] as unknown[] | undefined) ?? []).map(String);
  return (
    <Field label={label} hint={hint} fault={of.fault(name)} wide={wide ?? false}>
      <Words value={words} onChange={(to) => of.set(name, read ? to.map(read) : to)} />
    </Field>
  );
}

export function HeaderLines({ of, label }: { of: Scope; label: string }) {
  const [text, setText] = useState(() => headerLines(of.value["headers"]));
  const [before, setBefore] = useState(of.value["headers"]);
  const [secret, setSecret] = useState({ name: "", value: "" });
  const write = (lines: string, known: unknown) => (setText(lines), of.set("headers", readHeaders(lines, known)));
  const add = () => {
    const next = withSecret(text, before, secret.name, secret.value);
    setBefore(next.known);
    setSecret({ name: "", value: "" });
    write(next.text, next.known);
  };
  return (
    <>
      <Field label={label} hint="One a line, as Name: value. A secret keeps its value as long as its line stays." fault={of.fault("headers")} wide>
        <textarea rows={3} spellcheck={false} value={text} onInput={(e) => write(e.currentTarget.value, before)} />
      </Field>
      <div class="wide inline" role="group" aria-label={`${label}: a secret one`}>
        <input aria-label="Name of a secret header" placeholder="Secret header, such as Authorization" spellcheck={false} value={secret.name} onInput={(e) => setSecret({ ...secret, name: e.currentTarget.value })} />
        <input aria-label="Its value, which is never shown" placeholder="Its value, never shown" type="password" autocomplete="new-password" value={secret.value} onInput={(e) => setSecret({ ...secret, value: e.currentTarget.value })} />
        <button type="button" disabled={!secret.name.trim() || !secret.value} onClick={add}>Add secret header</button>
      </div>
    </>
  );
}

/** Words separated by commas; a comma at the end stays while it is typed. */
export function Words({ value, onChange, ...described }: { value: readonly string[]; onChange: (words: string[]) => void }) {
  const [text, setText] = useState(() => value.join(", "));
  return <input value={text} onInput={(e) => (setText(e.currentTarget.value), onChange(e.currentTarget.value.split(",").map((w) => w.trim()).filter(Boolean)))} {...described} />;
}
