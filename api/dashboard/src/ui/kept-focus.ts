// Where the focus goes when what had it is gone: a button that another one replaced, a row that was deleted, a filter that was
// taken off. Browsers drop it, and whoever works by keyboard would begin at the top of the page again.
import { useEffect } from "preact/hooks";

const FOCUSABLE = "button:not(:disabled), a[href], input:not(:disabled):not([hidden]), select, textarea, summary, [tabindex='0']";

function nearest(ancestors: readonly Element[]): HTMLElement | null {
  for (const element of ancestors) {
    if (!element.isConnected) continue;
    if (element.id === "main" || element === document.body) break;
    const found = [...element.querySelectorAll<HTMLElement>(FOCUSABLE)].find((e) => e.checkVisibility());
    if (found) return found;
  }
  return document.querySelector<HTMLElement>("main h1");
}

export function useKeptFocus(): void {
  useEffect(() => {
    let last: Element | null = null;
    let ancestors: Element[] = [];
    const enter = (e: FocusEvent) => {
      last = e.target instanceof Element ? e.target : null;
      ancestors = [];
      for (let a = last?.parentElement; a; a = a.parentElement) ancestors.push(a);
    };
    // A press somewhere else is a wish to be somewhere else.
    const press = () => (last = null);
    const changed = new MutationObserver(() => {
      if (!last || last.isConnected || (document.activeElement && document.activeElement !== document.body)) return;
      last = null;
      nearest(ancestors)?.focus({ preventScroll: true });
    });
    document.addEventListener("focusin", enter);
    document.addEventListener("pointerdown", press);
    changed.observe(document.body, { childList: true, subtree: true });
    return () => {
      document.removeEventListener("focusin", enter);
      document.removeEventListener("pointerdown", press);
      changed.disconnect();
    };
  }, []);
}
