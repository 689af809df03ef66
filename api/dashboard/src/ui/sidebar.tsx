// Where to go, and what holds for the whole page: refresh, theme, the session.
import { useContext, useEffect, useState } from "preact/hooks";
import { call } from "../api/calls";
import { send } from "../api/send";
import { clockOffset, TOLD_MS } from "../clock";
import { duration } from "../format";
import { setPaused, usePaused } from "../live";
import { NAVIGATION } from "../screens";
import { SessionContext } from "../session";
import { useSilence } from "./away";
import { useNowMs } from "./now";
import { applyTheme, storedTheme, type Theme } from "../theme";

const THEMES: readonly Theme[] = ["system", "light", "dark"];
const THEME_SIGN: Record<Theme, string> = { system: "◐", light: "☀", dark: "☾" };

export function Sidebar({ current }: { current: string }) {
  const session = useContext(SessionContext);
  const [open, setOpen] = useState(false);
  useEffect(() => {
    const close = () => setOpen(false);
    addEventListener("hashchange", close);
    return () => removeEventListener("hashchange", close);
  }, []);
  return (
    <header class={`sidebar${open ? " open" : ""}`}>
      <div class="brand">
        <a href="#/" class="logo">
          <svg viewBox="0 0 32 32" width="24" height="24" aria-hidden="true">
            <rect class="logo-back" width="32" height="32" rx="8" />
            <path d="M7 21h18" stroke="#fff" stroke-opacity=".45" stroke-width="2" stroke-linecap="round" />
            <g fill="#fff">
              <rect x="7" y="13" width="3" height="8" rx="1.5" />
              <rect x="12" y="9" width="3" height="12" rx="1.5" />
              <rect x="22" y="13" width="3" height="8" rx="1.5" fill-opacity=".6" />
            </g>
            <rect x="17" y="5" width="3" height="20" rx="1.5" fill="#ffc94d" />
          </svg>
          Horae
        </a>
        <button type="button" class="menu quiet" aria-expanded={open} aria-controls="navigation" onClick={() => setOpen(!open)}>
          <span aria-hidden="true">☰</span> Menu
        </button>
      </div>
      <nav id="navigation" aria-label="Screens">
        {NAVIGATION.map((g) => ({ ...g, items: g.items.filter((i) => i.reads === "read" || session.scope === "admin") })).filter((g) => g.items.length > 0).map((group) => (
          <ul key={group.name} aria-label={group.name}>
            {group.name && <li class="nav-group" aria-hidden="true">{group.name}</li>}
            {group.items.map((item) => (
              <li key={item.nav}>
                <a href={item.address} aria-current={item.nav === current ? "page" : undefined}>{item.label}</a>
              </li>
            ))}
          </ul>
        ))}
      </nav>
      <Switches />
    </header>
  );
}

/** Nothing, unless the reader's clock is wrong. */
function ClockNote() {
  useNowMs();
  const offset = clockOffset();
  if (Math.abs(offset) < TOLD_MS) return null;
  const [size, unit] = [Math.abs(offset), Math.abs(offset) < 120_000 ? 1000 : 60_000];
  return <span class="faint small" role="note">Your clock is {duration(Math.round(size / unit) * unit)} {offset > 0 ? "behind" : "ahead"}: times here are those of the nodes.</span>;
}

function Switches() {
  const session = useContext(SessionContext);
  const paused = usePaused();
  const silent = useSilence() !== undefined;
  const [theme, setTheme] = useState(storedTheme);
  const nextTheme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "system";
  const signOut = async () => {
    await send(call("delete", "/session")).catch(() => undefined);
    location.reload();
  };
  return (
    <div class="switches">
      <button type="button" class="quiet small" aria-pressed={paused} onClick={() => setPaused(!paused)}>
        <span aria-hidden="true" class={paused || silent ? "dot off" : "dot on"} /> {paused ? "Refresh paused" : silent ? "No answer" : "Live"}
      </button>
      <button type="button" class="quiet small" title="Change the theme" onClick={() => (applyTheme(nextTheme), setTheme(nextTheme))}>
        <span aria-hidden="true">{THEME_SIGN[theme]}</span> Theme: {theme}
      </button>
      <a class="quiet small" href="docs">API reference</a>
      {session.byCookie && <button type="button" class="quiet small" onClick={() => void signOut()}>Sign out {session.keyName}</button>}
      <ClockNote />
      {session.scope === "read" || session.dashboard === "read" ? <span class="faint small">Read only</span> : null}
      <span class="faint small">Horae {session.version}</span>
    </div>
  );
}
