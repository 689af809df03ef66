// The frame around every screen: who looks, where to go, what is shown.
import { useEffect, useErrorBoundary, useState } from "preact/hooks";
import { call } from "./api/calls";
import { onSignedOut, Problem, send } from "./api/send";
import type { Session } from "./api/types";
import { backOff } from "./live";
import { useRoute, type Route } from "./route";
import { screenOf, type Screen } from "./screens";
import { SignIn, SignInAgain } from "./screens/sign-in";
import { SessionContext } from "./session";
import { Away } from "./ui/away";
import { useKeptFocus } from "./ui/kept-focus";
import { Sidebar } from "./ui/sidebar";
import { NowProvider } from "./ui/now";
import { ProblemNote } from "./ui/parts";
import { Toasts } from "./ui/toast";

type Who = { session?: Session; signedOut?: boolean; problem?: Problem };
const RETRY_MS = 3000;

export function App() {
  const [who, setWho] = useState<Who>({});
  const ask = async (failures = 0) => {
    try {
      setWho({ session: await send(call("get", "/session")) });
    } catch (error) {
      const problem = error instanceof Problem ? error : new Problem(0, "Error", String(error));
      if (problem.status === 401) return;
      setWho((w) => ({ ...w, problem }));
      setTimeout(() => void ask(failures + 1), backOff(failures, RETRY_MS));
    }
  };
  useEffect(() => {
    void ask();
    return onSignedOut(() => setWho((w) => ({ ...w, signedOut: true })));
  }, []);
  useEffect(() => {
    if (!who.signedOut) return undefined;
    // Somebody may have signed in in another tab meanwhile.
    const look = () => document.hidden || void ask();
    addEventListener("focus", look);
    document.addEventListener("visibilitychange", look);
    return () => {
      removeEventListener("focus", look);
      document.removeEventListener("visibilitychange", look);
    };
  }, [who.signedOut]);
  if (who.signedOut && !who.session) return <main class="alone"><SignIn onDone={() => void ask()} /></main>;
  if (!who.session && who.problem) return <main class="alone"><ProblemNote problem={who.problem} /></main>;
  if (!who.session) return <main class="alone" aria-busy="true" />;
  return (
    <SessionContext.Provider value={who.session}>
      <NowProvider>
        {/* What a reader has typed stays while the session has ended, out of sight: it comes back with the next one. */}
        {who.signedOut && <SignInAgain onDone={() => void ask()} />}
        <div hidden={who.signedOut ?? false}><Frame /></div>
        <Toasts />
      </NowProvider>
    </SessionContext.Provider>
  );
}

function Frame() {
  const route = useRoute();
  const screen = screenOf(route);
  const place = route.path.join("/");
  useKeptFocus();
  useEffect(() => {
    document.title = `${screen.title(route)} · Horae`;
  }, [screen, place]);
  useEffect(() => {
    // A screen reader begins to read where the new screen begins.
    document.querySelector<HTMLElement>("main h1")?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [place]);
  return (
    <div class="frame">
      <a class="skip" href="#main" onClick={(e) => (e.preventDefault(), document.querySelector<HTMLElement>("main h1")?.focus())}>Skip to the content</a>
      <Sidebar current={screen.nav} />
      <main id="main">
        <Away />
        <Guarded key={place} view={screen.View} route={route} />
      </main>
    </div>
  );
}

/** A screen that cannot be drawn says so; the others stay in reach. */
function Guarded({ view: View, route }: { view: Screen["View"]; route: Route }) {
  const [error] = useErrorBoundary((reason) => console.error(reason));
  if (!error) return <View route={route} />;
  return (
    <>
      <h1 tabIndex={-1}>This screen cannot be shown</h1>
      <p class="note">{String(error)}. <a href="#/">Go to the first screen</a></p>
    </>
  );
}
