// Who looks at the page, and what they may do. The server refuses all the same; this only keeps buttons away that cannot work.
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Session } from "./api/types";

const RANK = { read: 1, write: 2, admin: 3 } as const;

export const SessionContext = createContext<Session>({
  keyName: null, scope: "read", dashboard: "read", byCookie: false, version: "",
});

export function mayDo(session: Session, needed: keyof typeof RANK): boolean {
  if (needed !== "read" && session.dashboard === "read") return false;
  return RANK[session.scope] >= RANK[needed];
}

export function useMay(needed: keyof typeof RANK): boolean {
  return mayDo(useContext(SessionContext), needed);
}
