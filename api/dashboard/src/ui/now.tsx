// One clock for the whole page: every time that is shown relative to now follows it.
import { createContext, type ComponentChildren } from "preact";
import { useContext } from "preact/hooks";
import { clock, fullTime, relative } from "../format";
import { useNow } from "../live";

const Now = createContext(0);

export function NowProvider({ children }: { children: ComponentChildren }) {
  return <Now.Provider value={useNow()}>{children}</Now.Provider>;
}

export function useNowMs(): number {
  return useContext(Now);
}

interface TimeProps {
  at: string | null | undefined;
  /** Show the clock time instead of the distance from now. */
  exact?: boolean;
  ms?: boolean;
}

/** A time: its distance from now, with the full time as its title. */
export function Time({ at, exact = false, ms = false }: TimeProps) {
  const now = useNowMs();
  if (!at) return <span class="faint">–</span>;
  const value = Date.parse(at);
  return (
    <time dateTime={at} title={`${fullTime(value)} (${at})`}>
      {exact ? clock(value, now, undefined, ms) : relative(value, now)}
    </time>
  );
}
