// Small parts that every screen uses.
import { cloneElement, isValidElement, type ComponentChildren, type VNode } from "preact";
import { useId, useState } from "preact/hooks";
import type { Problem } from "../api/send";

export function Head({ title, note, children }: { title: ComponentChildren; note?: ComponentChildren; children?: ComponentChildren }) {
  return (
    <header class="head">
      <div class="head-text">
        <h1 tabIndex={-1}>{title}</h1>
        {note && <p class="note">{note}</p>}
      </div>
      {children && <div class="actions">{children}</div>}
    </header>
  );
}

interface CardProps {
  title?: ComponentChildren;
  aside?: ComponentChildren;
  class?: string;
  children: ComponentChildren;
}

export function Card({ title, aside, class: extra = "", children }: CardProps) {
  return (
    <section class={`card ${extra}`}>
      {title && (
        <div class="card-head">
          <h2>{title}</h2>
          {aside}
        </div>
      )}
      {children}
    </section>
  );
}

export function Facts({ items }: { items: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {items.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

/** What went wrong, in the server's own words. */
export function ProblemNote({ problem }: { problem: Problem | undefined }) {
  if (!problem) return null;
  return (
    <div class="problem" role="alert">
      <strong>{problem.title}</strong>
      {problem.detail && <span> {problem.detail}</span>}
      {problem.faults.length > 0 && (
        <ul>
          {problem.faults.map((f) => (
            <li key={f.path + f.message}>
              {f.path && <code>{f.path}</code>} {f.message}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

export function CopyButton({ text, label = "Copy" }: { text: string; label?: string }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone(true);
      setTimeout(() => setDone(false), 1500);
    } catch {
      setDone(false);
    }
  };
  return (
    <button type="button" class="small quiet" onClick={() => void copy()}>
      {done ? "Copied" : label}
    </button>
  );
}

export function Code({ text, label }: { text: string; label: string }) {
  return (
    <div class="code">
      <pre tabIndex={0} aria-label={label}>{text}</pre>
      <CopyButton text={text} />
    </div>
  );
}

interface FieldProps {
  label: string;
  hint?: ComponentChildren;
  fault?: string | undefined;
  children: ComponentChildren;
  wide?: boolean;
}

/** A labelled input with its hint, and the server's fault beside it. Both describe the input, and are not its name. */
export function Field({ label, hint, fault, children, wide = false }: FieldProps) {
  const id = useId();
  const described = isValidElement(children) ? cloneElement(children as VNode<Record<string, unknown>>, { "aria-describedby": id, ...(fault ? { "aria-invalid": true } : {}) }) : children;
  return (
    <div class={`field${wide ? " wide" : ""}${fault ? " at-fault" : ""}`}>
      <label>
        <span class="field-label">{label}</span>
        {described}
      </label>
      <span id={id}>
        {fault && <span class="fault" role="alert">{fault}</span>}
        {hint && !fault && <span class="hint">{hint}</span>}
      </span>
    </div>
  );
}

/** Placeholder rows of a list that is on its way: they take the place that it will need. */
export function Skeleton({ rows = 8 }: { rows?: number }) {
  return (
    <div class="skeleton" aria-busy="true" aria-label="Loading">
      {Array.from({ length: rows }, (_, i) => <div key={i} />)}
    </div>
  );
}

export function Tags({ tags }: { tags: readonly string[] }) {
  return (
    <span class="tags">
      {tags.map((tag) => (
        <a key={tag} class="tag" href={`#/jobs?tag=${encodeURIComponent(tag)}`} title={`Jobs with the tag ${tag}`}>{tag}</a>
      ))}
    </span>
  );
}
