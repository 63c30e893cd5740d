import { useLayoutEffect, useRef, useState } from "preact/hooks";

const STEPS: Record<string, [number, number]> = {
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
};

/**
 * One Tab stop for many elements in rows, and the arrow keys among them. `lengths` are the rows' sizes; an element in place
 * (row, i) carries `data-at="row,i"`, and the Tab stop is `at`.
 */
export function useRoving(lengths: number[]) {
  const [at, setAt] = useState<[number, number]>([0, 0]);
  const box = useRef<any>(null);
  const wanted = useRef(false);
  const row = Math.max(0, Math.min(at[0], lengths.length - 1));
  const here: [number, number] = [row, Math.max(0, Math.min(at[1], (lengths[row] ?? 1) - 1))];

  useLayoutEffect(() => {
    if (!wanted.current) return;
    wanted.current = false;
    (box.current as HTMLElement | null)?.querySelector<HTMLElement>(`[data-at="${here[0]},${here[1]}"]`)?.focus();
  });

  const onKeyDown = (event: KeyboardEvent) => {
    // The element that has the focus, not the last one drawn: keys may come faster than frames.
    const [fromRow, from] = placeOf(event.target) ?? here;
    const to = next(event.key, fromRow, from, lengths);
    if (!to) return;
    wanted.current = true;
    setAt(to);
    event.preventDefault();
    event.stopPropagation();
  };
  return { box, at: here, onKeyDown, tab: (r: number, i: number) => (r === here[0] && i === here[1] ? 0 : -1) };
}

function next(key: string, row: number, i: number, lengths: number[]): [number, number] | null {
  const last = (r: number) => Math.max(0, (lengths[r] ?? 1) - 1);
  if (key === "Home") return [row, 0];
  if (key === "End") return [row, last(row)];
  const step = STEPS[key];
  if (!step) return null;
  const r = Math.min(lengths.length - 1, Math.max(0, row + step[0]));
  return [r, Math.min(last(r), Math.max(0, i + step[1]))];
}

export function placeOf(target: EventTarget | null): [number, number] | null {
  const at = (target as Element | null)?.closest?.<HTMLElement>("[data-at]")?.dataset.at?.split(",");
  return at ? [Number(at[0]), Number(at[1])] : null;
}
