// What the page says while no node answers: once, whatever is on the screen. It asks until one does; what was typed stays.
import { useEffect, useState } from "preact/hooks";
import { call } from "../api/calls";
import { onSilence, send, silence } from "../api/send";
import { clock } from "../format";
import { backOff } from "../live";

const FIRST_MS = 1000;

function useSilence(): number {
  const [since, setSince] = useState(silence);
  useEffect(() => onSilence(() => setSince(silence())), []);
  return since;
}

/** Said in dialogs too, which cover the rest of the page. */
export function AwayNote() {
  const since = useSilence();
  if (!since) return null;
  return (
    <div class="problem away" role="alert">
      <strong>No answer</strong> <span>since {clock(since, Date.now())}. The page asks again until a node answers; what you typed stays.</span>
    </div>
  );
}

/** Asks for little, more and more seldom, until there is an answer: then every part of the page asks for its own again. */
function useProbe(since: number): void {
  useEffect(() => {
    if (!since) return undefined;
    let timer = 0;
    let failures = 0;
    let over = false;
    const plan = () => {
      if (over) return;
      timer = window.setTimeout(() => (document.hidden ? plan() : void send(call("get", "/session")).catch(plan)), backOff(failures++, FIRST_MS));
    };
    plan();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [since]);
}

export function Away() {
  useProbe(useSilence());
  return <AwayNote />;
}
