// The key is sent once and becomes a cookie that scripts cannot read; the page keeps neither.
import { useEffect, useRef, useState } from "preact/hooks";
import { call } from "../api/calls";
import { Problem, send } from "../api/send";
import { Field, ProblemNote } from "../ui/parts";

const ASKS = "This node asks for an API key. Its scope decides what you see and may do here.";
const ENDED = "Your session has ended: it expired, or its key was revoked. With a key you go on where you were.";

/** In front of all dialogs of a page whose session has ended. Only a key closes it. */
export function SignInAgain({ onDone }: { onDone: () => void }) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = element.current;
    dialog?.showModal();
    return () => dialog?.close();
  }, []);
  return (
    <dialog ref={element} aria-label="Sign in again" onCancel={(e) => e.preventDefault()} onClose={() => element.current?.isConnected && element.current.showModal()}>
      <SignIn note={ENDED} onDone={onDone} />
    </dialog>
  );
}

export function SignIn({ onDone, note = ASKS }: { onDone: () => void; note?: string }) {
  const [problem, setProblem] = useState<Problem>();
  const [busy, setBusy] = useState(false);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (busy) return;
    const key = String(new FormData(event.target as HTMLFormElement).get("key") ?? "").trim();
    setBusy(true);
    try {
      await send(call("post", "/session", { body: { key } }));
      onDone();
    } catch (error) {
      setProblem(error instanceof Problem ? error : new Problem(0, "Error", String(error)));
    } finally {
      setBusy(false);
    }
  };
  return (
    <form class="card sign-in" onSubmit={(e) => void submit(e)}>
      <h1>Horae</h1>
      <p class="note">{note}</p>
      <Field label="API key">
        <input name="key" type="password" autocomplete="current-password" required autofocus spellcheck={false} />
      </Field>
      <ProblemNote problem={problem?.status === 401 ? new Problem(401, "This key is not known.", "It may have been revoked or have expired.") : problem} />
      <button type="submit" class="primary" aria-disabled={busy}>Sign in</button>
    </form>
  );
}
