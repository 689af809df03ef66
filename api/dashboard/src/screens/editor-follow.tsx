// What follows an execution: who is told how it ended, and when channels are alerted.
import { useState } from "preact/hooks";
import { Field } from "../ui/parts";
import { Check, HeaderLines, Line, Numeric, SecretLine, WordsLine, type Scope } from "./editor-fields";

export function CallbackFields({ of, name, title }: { of: Scope; name: string; title: string }) {
  const callback = of.within(name);
  const [kind, setKind] = useState(callback.value["channel"] ? "channel" : of.value[name] ? "api" : "");
  const choose = (to: string) => {
    setKind(to);
    of.set(name, undefined);
  };
  return (
    <fieldset class="wide">
      <legend>{title}</legend>
      <div class="form">
        <Field label="Tell" fault={of.faultOfWhole(name)}>
          <select value={kind} onChange={(e) => choose(e.currentTarget.value)}>
            <option value="">nobody</option><option value="api">a URL</option><option value="channel">a channel</option>
          </select>
        </Field>
        {kind === "channel" && <Line of={callback} name="channel" label="Channel" list="channels" />}
        {kind === "api" && <Line of={callback} name="api" label="Callback URL" type="url" placeholder="https://api.example.com/results" />}
        {kind === "api" && <HeaderLines of={callback} label="Callback headers" />}
        {kind === "api" && <SecretLine of={callback} name="signingSecret" label="Callback secret" hint="Write-only: the stored one is kept if this is empty." wide />}
      </div>
    </fieldset>
  );
}

export function Alerts({ of, whole }: { of: Scope; whole: string | undefined }) {
  return (
    <>
      <WordsLine of={of} name="channels" label="Channels" hint="Separated by commas. Without rules of its own a job has the default rules." wide />
      {whole && <span class="fault wide" role="alert">{whole}</span>}
      <Check of={of} name="onDead" label="When an execution is dead" />
      <Check of={of} name="onMissed" label="When occurrences are missed" />
      <Numeric of={of} name="afterFailures" label="After failures in a row" usual="never" />
      <Numeric of={of} name="driftOverMs" label="Later than (ms)" usual="never" />
      <Numeric of={of} name="noRunForSeconds" label="No success for (s)" usual="never" />
      <Numeric of={of} name="remindAfterSeconds" label="Remind every (s)" usual="never" />
      <Check of={of} name="onRecovery" label="Also when it is over" usual />
    </>
  );
}
