// A dialog of the browser itself: it keeps the focus, closes with Escape, and gives the focus back. It begins at its first
// field; without one, and where a field would bring up a keyboard of the screen, at its title. Enter in a line of text does
// what its main button does, as in a form.
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { AwayNote } from "./away";

const LINES = "input:not([type=checkbox]):not([type=file])";
const FIELDS = "input:not([type=checkbox]):not(:disabled), select, textarea";

interface DialogProps {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}

export function Dialog({ title, onClose, children }: DialogProps) {
  const element = useRef<HTMLDialogElement>(null);
  const heading = useId();
  useEffect(() => {
    const dialog = element.current;
    if (dialog && !dialog.open) {
      dialog.showModal();
      const field = matchMedia("(pointer: coarse)").matches ? null : dialog.querySelector<HTMLElement>(FIELDS);
      (field ?? dialog.querySelector<HTMLElement>("h2"))?.focus();
    }
    return () => dialog?.close();
  }, []);
  const enter = (e: KeyboardEvent) => {
    const field = e.target as HTMLElement;
    // A dialog may be within another one, which hears the same key.
    if (e.key !== "Enter" || e.isComposing || !field.matches(LINES) || field.closest("dialog") !== element.current) return;
    e.preventDefault();
    element.current?.querySelector<HTMLButtonElement>(":scope > .dialog > .dialog-foot > .primary:not(:disabled)")?.click();
  };
  return (
    <dialog ref={element} aria-labelledby={heading} onKeyDown={enter} onClose={onClose} onClick={(e) => e.target === element.current && onClose()}>
      <div class="dialog">
        <div class="dialog-head">
          <h2 id={heading} tabIndex={-1}>{title}</h2>
          <button type="button" class="quiet icon" aria-label="Close" onClick={onClose}>✕</button>
        </div>
        <AwayNote />
        {children}
      </div>
    </dialog>
  );
}
