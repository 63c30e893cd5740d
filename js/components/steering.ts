// What Steer knows, as the wire carries it, and the questions that its picture asks of it.

import { unpack, type Packed } from "../wire";
import { digits, steps } from "./numbers";

export interface DirectionInfo {
  name: string;
  site: string;
  scale: number;
  /** What a slider counts: natural steps, or raw units where no step is known. */
  unit: "step" | "raw";
  scale_kind: string;
  scale_n: number;
  residual_norm: number | null;
  /** Whether other layers have the same site. */
  layered: boolean;
}

export interface Setup {
  model: string;
  has_chat: boolean;
  max_new_tokens: number;
  limit: number;
  directions: DirectionInfo[];
  recipe: string | null;
}

export interface Prompt {
  chat: boolean;
  text: string;
  before: { role: string; content: string }[];
}

export interface EditForm {
  direction: number;
  op: "add" | "out";
  coefficient: number;
  layers: "site" | "all";
  scope: "all" | "prompt" | "generated";
  schedule: "constant" | "ramp" | "decay";
  length: number;
  on: boolean;
}

export interface Column {
  prompt: Prompt | null;
  prompt_words: string[];
  words: string[];
  /** Projection of each token on each direction, [direction, token], prompt first; NaN where not read. */
  values: Packed | null;
  state: "empty" | "running" | "done" | "stopped" | "error";
  mixed: boolean;
}

export interface Columns {
  plain: Column;
  edited: Column;
  attached: string[];
}

export interface Dose {
  prompt: Prompt;
  edit: EditForm;
  strengths: Packed;
  effect: Packed;
  cost: Packed;
  random_effect: Packed;
  random_cost: Packed;
  words: string[];
  texts: Column[];
}

export function newEdit(direction: number): EditForm {
  return { direction, op: "add", coefficient: 0, layers: "site", scope: "all", schedule: "constant", length: 10, on: true };
}

export function isActive(edit: EditForm): boolean {
  return edit.on && (edit.op === "out" || edit.coefficient !== 0);
}

/** The strength at which an edit stands, on the axis of its dose: steps, or 0 and 1 for a direction taken out. */
export function strength(edit: EditForm): number {
  if (!edit.on) return 0;
  return edit.op === "out" ? 1 : edit.coefficient;
}

/** "+2.0 steps · 7.4 raw · 0.61 |resid|" */
export function units(edit: EditForm, direction: DirectionInfo): string {
  if (!edit.on) return "off";
  if (edit.op === "out") return "taken out";
  const raw = edit.coefficient * direction.scale;
  const norm = direction.residual_norm;
  return [...(direction.unit === "step" ? [`${steps(edit.coefficient)} steps`] : []), `${digits(raw)} raw`, ...(norm ? [`${digits(Math.abs(raw) / norm)} |resid|`] : [])].join(" · ");
}

export function where(edit: EditForm, direction: DirectionInfo): string {
  const scope = { all: "all tokens", prompt: "prompt only", generated: "generated only" }[edit.scope];
  const schedule = { constant: "", ramp: `grows over ${edit.length} tokens`, decay: `halves every ${edit.length} tokens` }[edit.schedule];
  return [edit.op === "out" ? "take out" : "add", edit.layers === "all" ? "all layers" : direction.site, scope, schedule].filter(Boolean).join(" · ");
}

export function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (value && typeof value === "object") {
    return Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, sorted(inner)]);
  }
  return value;
}

/** Whether a dose was measured for another prompt, or another form of the edit, than stands now. */
export function isStale(dose: Dose, prompt: Prompt, edit: EditForm): boolean {
  const form = ({ coefficient: _, on: __, ...rest }: EditForm) => rest;
  return !same(dose.prompt, prompt) || !same(form(dose.edit), form(edit));
}

/** Index of the saved strength nearest to one. */
export function nearest(strengths: ArrayLike<number>, wanted: number): number {
  let best = 0;
  for (let i = 1; i < strengths.length; i++) {
    if (Math.abs(strengths[i]! - wanted) < Math.abs(strengths[best]! - wanted)) best = i;
  }
  return best;
}

export function valuesOf(column: Column, direction: number): ArrayLike<number> {
  if (direction < 0 || !column.values) return [];
  const { data, shape } = unpack(column.values);
  const width = shape[1] ?? 0;
  return data.subarray(direction * width, (direction + 1) * width);
}
