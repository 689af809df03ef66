// Jobs from a file: dropped anywhere on the list, or chosen. One job a line, as `horae jobs export` writes them.
import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { call } from "../api/calls";
import type { Schemas } from "../api/types";
import { Problem } from "../api/send";
import { plural } from "../format";
import { useMay } from "../session";
import { CurlNote, SendButton } from "../ui/action";
import { Dialog } from "../ui/dialog";
import { ProblemNote } from "../ui/parts";
import { toast } from "../ui/toast";

const LARGEST = 20 * 1024 * 1024;
type Imported = Schemas["Imported"];

export function ImportDrop({ children, onDone }: { children: ComponentChildren; onDone: () => void }) {
  const may = useMay("write");
  const [over, setOver] = useState(false);
  const [file, setFile] = useState<{ name: string; text: string }>();
  const chooser = useRef<HTMLInputElement>(null);
  if (!may) return <>{children}</>;
  const take = async (chosen: File | undefined) => {
    setOver(false);
    if (!chosen) return;
    if (chosen.size > LARGEST) toast(`${chosen.name} is larger than 20 MB: use horae jobs import`);
    else setFile({ name: chosen.name, text: await chosen.text() });
    // The same file can be chosen again, once it was put right.
    if (chooser.current) chooser.current.value = "";
  };
  return (
    <div
      class={over ? "drop over" : "drop"}
      onDragOver={(e) => (e.preventDefault(), setOver(true))}
      onDragLeave={(e) => e.currentTarget === e.target && setOver(false)}
      onDrop={(e) => (e.preventDefault(), void take(e.dataTransfer?.files[0]))}
    >
      {children}
      <p class="faint import-note">
        Drop a file with one job a line here, or{" "}
        <button type="button" class="link" onClick={() => chooser.current?.click()}>choose one to import</button>.
        <input ref={chooser} type="file" hidden accept=".ndjson,.jsonl,.json" onChange={(e) => void take(e.currentTarget.files?.[0])} />
      </p>
      {file && <ImportDialog {...file} onClose={() => setFile(undefined)} onDone={onDone} />}
    </div>
  );
}

function ImportDialog({ name, text, onClose, onDone }: { name: string; text: string; onClose: () => void; onDone: () => void }) {
  const [problem, setProblem] = useState<Problem>();
  const [result, setResult] = useState<Imported>();
  const lines = text.split("\n").filter((line) => line.trim()).length;
  // The body goes as it is in the file, so the call is made by hand from the operation's path.
  const upload = { ...call("post", "/jobs/import", { headers: { "Content-Type": "application/x-ndjson" } }), body: text };
  return (
    <Dialog title={`Import ${name}`} onClose={onClose}>
      <div class="dialog-body">
        {result ? <Result result={result} /> : <p>{plural(lines, "job")}: new ones are created, those with a known jobId are replaced. Lines with faults are left out and listed.</p>}
      </div>
      <ProblemNote problem={problem} />
      {!result && <CurlNote call={{ ...upload, body: text.length > 2000 ? "@jobs.ndjson" : text }} />}
      <div class="dialog-foot">
        <button type="button" onClick={onClose}>{result ? "Close" : "Cancel"}</button>
        {!result && <SendButton call={upload} label={`Import ${plural(lines, "job")}`} onDone={(r) => (setResult(r as Imported), onDone())} onProblem={setProblem} />}
      </div>
    </Dialog>
  );
}

function Result({ result }: { result: Imported }) {
  return (
    <>
      <p role="status">
        {result.created} created, {result.updated} updated, {result.unchanged} unchanged, {result.failed} with faults.
      </p>
      {result.errors.length > 0 && (
        <ul class="plain">
          {result.errors.map((bad) => (
            <li key={bad.line}>Line {bad.line}: {bad.errors.map((f) => `${f.path} ${f.message}`).join("; ")}</li>
          ))}
        </ul>
      )}
    </>
  );
}
