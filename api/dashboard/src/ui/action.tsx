// A button that changes something. It says what will happen, shows the same as curl, and reports how it went.
import type { ComponentChildren } from "preact";
import { useContext, useRef, useState } from "preact/hooks";
import type { Call } from "../api/calls";
import { curl } from "../api/curl";
import { base, Problem, send } from "../api/send";
import { SessionContext, useMay } from "../session";
import { Dialog } from "./dialog";
import { Code, ProblemNote } from "./parts";
import { toast } from "./toast";

export function CurlNote({ call }: { call: Call }) {
  const session = useContext(SessionContext);
  return (
    <details class="curl">
      <summary>The same as curl</summary>
      <Code text={curl(call, base, session.keyName !== null)} label="The same request as a curl command" />
    </details>
  );
}

interface SendButtonProps<T> {
  call: Call<T>;
  label: string;
  danger?: boolean;
  disabled?: boolean;
  onDone: (content: T) => void;
  onProblem: (problem: Problem) => void;
}

/** A name for a request, so that the one which is repeated after silence is not done twice. */
function requestName(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** To the first field that the server does not take, if there is one. */
function toFault(place: Element | null): void {
  place?.querySelector<HTMLElement>("[aria-invalid=true]")?.focus();
}

/** The button that sends, once at a time. */
export function SendButton<T>({ call, label, danger = false, disabled = false, onDone, onProblem }: SendButtonProps<T>) {
  const [busy, setBusy] = useState(false);
  const unanswered = useRef({ content: "", name: "" });
  const start = async (button: HTMLElement) => {
    if (busy) return;
    const place = button.closest("dialog, main");
    setBusy(true);
    const content = JSON.stringify(call);
    const name = unanswered.current.content === content ? unanswered.current.name : requestName();
    unanswered.current = { content: "", name: "" };
    try {
      onDone(await send(call.method === "post" ? { ...call, headers: { ...call.headers, "Idempotency-Key": name } } : call));
    } catch (error) {
      const problem = error instanceof Problem ? error : new Problem(0, "Error", String(error));
      if (problem.silent) unanswered.current = { content, name };
      onProblem(problem);
      if (problem.faults.length > 0) requestAnimationFrame(() => toFault(place));
    } finally {
      setBusy(false);
    }
  };
  // Not disabled while it sends: that would take the focus away.
  return (
    <button type="button" class={danger ? "danger" : "primary"} disabled={disabled} aria-disabled={busy} onClick={(e) => void start(e.currentTarget)}>
      {busy ? "Sending…" : label}
    </button>
  );
}

interface ActionProps<T> {
  label: string;
  title: string;
  call: Call<T>;
  children: ComponentChildren;
  confirm?: string;
  danger?: boolean;
  primary?: boolean;
  small?: boolean;
  needs?: "write" | "admin";
  done: (content: T) => string | { text: string; link: string };
  onDone?: (content: T) => void;
}

/** A button with its dialog. Nothing is shown to somebody who may not do it. */
export function Action<T>(props: ActionProps<T>) {
  const [open, setOpen] = useState(false);
  const [problem, setProblem] = useState<Problem>();
  if (!useMay(props.needs ?? "write")) return null;
  const close = () => setOpen(false);
  const finish = (content: T) => {
    const news = props.done(content);
    toast(typeof news === "string" ? news : news.text, typeof news === "string" ? undefined : news.link);
    close();
    props.onDone?.(content);
  };
  const kind = [props.primary && "primary", props.danger && "danger-quiet", props.small && "small"].filter(Boolean).join(" ");
  return (
    <>
      <button type="button" class={kind} onClick={() => (setProblem(undefined), setOpen(true))}>{props.label}</button>
      {open && (
        <Dialog title={props.title} onClose={close}>
          <div class="dialog-body">{props.children}</div>
          <ProblemNote problem={problem} />
          <CurlNote call={props.call} />
          <div class="dialog-foot">
            <button type="button" onClick={close}>Cancel</button>
            <SendButton call={props.call} label={props.confirm ?? props.label} danger={props.danger ?? false} onDone={finish} onProblem={setProblem} />
          </div>
        </Dialog>
      )}
    </>
  );
}
