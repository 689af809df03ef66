// What the page says while no node answers, or nodes have no answer of the database: once, whatever is on the screen. It asks
// until there is one; what was shown and what was typed stays.
import { useEffect, useState } from "preact/hooks";
import { call } from "../api/calls";
import { onSilence, send, silence, type Silence } from "../api/send";
import { clock } from "../format";
import { backOff } from "../live";

const FIRST_MS = 1000;

/** Since when there has been no answer, and whose; undefined while there is. */
export function useSilence(): Silence | undefined {
  const [found, setFound] = useState(silence);
  useEffect(() => onSilence(() => setFound(silence())), []);
  return found;
}

/** Said in dialogs too, which cover the rest of the page. */
export function AwayNote() {
  const found = useSilence();
  if (!found) return null;
  const at = clock(found.since, Date.now());
  return (
    <div class="problem away" role="alert">
      {found.of === "node" ? (
        <><strong>No answer</strong> <span>since {at}. The page asks again until a node answers; what you typed stays.</span></>
      ) : (
        <><strong>The database does not answer</strong> <span>since {at}. What is shown is of before; the page asks again until there is an answer.</span></>
      )}
    </div>
  );
}

/** Asks for little, more and more seldom, until there is an answer: then every part of the page asks for its own again. */
function useProbe(found: Silence | undefined): void {
  useEffect(() => {
    if (!found) return undefined;
    const question = found.of === "node" ? call("get", "/session") : call("get", "/queues");
    let timer = 0;
    let failures = 0;
    let over = false;
    const plan = () => {
      if (over) return;
      timer = window.setTimeout(() => (document.hidden ? plan() : void send<unknown>(question).catch(plan)), backOff(failures++, FIRST_MS));
    };
    plan();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [found]);
}

export function Away() {
  useProbe(useSilence());
  return <AwayNote />;
}
