// The key is sent once and becomes a cookie that scripts cannot read; the page keeps neither.
import { useState } from "preact/hooks";
import { call } from "../api/calls";
import { Problem, send } from "../api/send";
import { Field, ProblemNote } from "../ui/parts";

export function SignIn({ onDone }: { onDone: () => void }) {
  const [problem, setProblem] = useState<Problem>();
  const [busy, setBusy] = useState(false);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
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
    <main class="alone">
      <form class="card sign-in" onSubmit={(e) => void submit(e)}>
        <h1>Horae</h1>
        <p class="note">This node asks for an API key. Its scope decides what you see and may do here.</p>
        <Field label="API key">
          <input name="key" type="password" autocomplete="current-password" required autofocus spellcheck={false} />
        </Field>
        <ProblemNote problem={problem?.status === 401 ? new Problem(401, "This key is not known.", "It may have been revoked or have expired.") : problem} />
        <button type="submit" class="primary" disabled={busy}>Sign in</button>
      </form>
    </main>
  );
}
