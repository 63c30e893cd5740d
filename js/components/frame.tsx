import type { ComponentChildren } from "preact";
import type { Life } from "../sync";
import { readable } from "./glyphs";

export interface Status {
  state: "ready" | "loading" | "stale" | "error";
  message: string;
}

interface Props {
  title: string;
  what: string;
  verbs?: ComponentChildren;
  foot?: ComponentChildren;
  life: Life;
  status?: Status;
  children?: ComponentChildren;
}

const LIVES: Record<Life, string> = {
  asking: "asking the kernel…",
  live: "",
  silent: "no answer from the kernel: this is what was saved; run the cell to make it live",
  page: "saved page",
};

/** A heavy rule and a title line, the picture, a hairline and a footline. */
export function Frame({ title, what, verbs, foot, life, status, children }: Props) {
  const shown = status && status.state !== "ready" && status.message;
  // A name may hold anything; on a line of ours it turns no direction.
  const said = what && readable(what);
  return (
    <>
      <div class="iv-head">
        <h3>{title}</h3>
        <span class="iv-what" title={said}>
          {said}
        </span>
        <div class="iv-verbs">{verbs}</div>
      </div>
      {shown && (
        <p class={status.state === "error" ? "iv-note iv-note-bad" : "iv-note"} role={status.state === "error" ? "alert" : "status"}>
          {readable(status.message)}
        </p>
      )}
      {children}
      <div class="iv-foot">
        {foot}
        {LIVES[life] && <span class={life === "asking" ? "iv-late" : undefined}>{LIVES[life]}</span>}
      </div>
    </>
  );
}

export function Verb(props: {
  label: string;
  onAct(): void;
  disabled?: boolean;
  why?: string;
  pressed?: boolean;
}) {
  return (
    <button
      type="button"
      class="iv-verb"
      disabled={props.disabled}
      title={props.why}
      aria-pressed={props.pressed}
      data-lm-suppress-shortcuts="true"
      onClick={props.onAct}
    >
      {props.label}
    </button>
  );
}

export function Choice<T extends string>(props: {
  label: string;
  options: readonly { value: T; label: string; why?: string; disabled?: boolean }[];
  value: T;
  onPick(value: T): void;
}) {
  return (
    <span class="iv-choice" role="group" aria-label={props.label}>
      {props.options.map((option) => (
        <Verb
          label={option.label}
          why={option.why}
          disabled={option.disabled}
          pressed={option.value === props.value}
          onAct={() => props.onPick(option.value)}
        />
      ))}
    </span>
  );
}
