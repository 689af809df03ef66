// Short news at the edge of the screen, read aloud by screen readers.
import { useEffect, useState } from "preact/hooks";

interface Toast {
  id: number;
  text: string;
  link?: string | undefined;
}

let shown: Toast[] = [];
let next = 1;
const listeners = new Set<() => void>();

const SHOWN_MS = 8000;
/** While somebody points at the news, or is in it by keyboard, it stays. */
const IN_USE = ".toasts:hover, .toasts:focus-within";

export function toast(text: string, link?: string): void {
  const id = next++;
  shown = [...shown.slice(-2), { id, text, link }];
  listeners.forEach((tell) => tell());
  const end = () => {
    if (document.querySelector(IN_USE)) return void setTimeout(end, SHOWN_MS);
    shown = shown.filter((t) => t.id !== id);
    return listeners.forEach((tell) => tell());
  };
  setTimeout(end, SHOWN_MS);
}

export function Toasts() {
  const [items, setItems] = useState(shown);
  useEffect(() => {
    const follow = () => setItems(shown);
    listeners.add(follow);
    return () => void listeners.delete(follow);
  }, []);
  return (
    <div class="toasts" role="status" aria-live="polite">
      {items.map((t) => (
        <div key={t.id} class="toast">
          {t.text} {t.link && <a href={t.link}>Show</a>}
        </div>
      ))}
    </div>
  );
}
