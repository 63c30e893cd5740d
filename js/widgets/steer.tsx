import { useComputed, useSignal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { FeatureAt } from "../bus";
import { ActingList, useActing } from "../components/acting";
import { DosePlot } from "../components/dose_plot";
import { EditRow } from "../components/edit_row";
import { Frame, Verb, type Status } from "../components/frame";
import { readable, visible } from "../components/glyphs";
import { mount, type Scene } from "../components/mount";
import { digits, steps } from "../components/numbers";
import { fullShade, Shaded } from "../components/shaded";
import {
  isActive,
  isStale,
  nearest,
  newEdit,
  same,
  strength,
  valuesOf,
  type Column,
  type Columns,
  type Dose,
  type EditForm,
  type Prompt,
  type Setup,
} from "../components/steering";
import type { Theme } from "../components/colour";
import type { View } from "../sync";
import { unpack } from "../wire";

const HEADING = "Steer";
const NO_KERNEL = "no kernel answers: this is what was saved";

function Steer({ sync, theme, bus, ended, root }: Scene) {
  const setup = sync.trait<Setup>("setup").value;
  const prompt = sync.trait<Prompt>("prompt");
  const edits = sync.trait<EditForm[]>("edits");
  const columns = sync.trait<Columns>("columns").value;
  const doses = sync.trait<(Dose | null)[]>("dose").value;
  const shade = sync.trait<number>("shade");
  const status = sync.trait<Status>("status").value;
  const current = useSignal(0);
  const moved = useSignal(false);
  const code = useSignal<{ text: string; copied: boolean } | null>(null);
  const told = useSignal<Status>({ state: "ready", message: "" });
  const look = useSignal<{ column: "plain" | "edited"; index: number } | null>(null);
  const active = useComputed(() => edits.value.filter(isActive).length);
  const life = sync.life.value;
  // Without a kernel, whether on a page or after a crash, only what was saved can be shown.
  const page = life === "page" || life === "silent";
  const { acting, ask, open } = useActing(sync);
  useEffect(() => {
    bus?.hear("steer", (at: FeatureAt) => knows(setup, at) && bringUp(root), ended);
  }, []);
  const why = page ? NO_KERNEL : undefined;

  const doseOf = (edit: EditForm | undefined): Dose | null => (edit && doses[edit.direction]) || null;
  const change = (i: number, edit: EditForm) => {
    current.value = i;
    moved.value = true;
    sync.put("edits", page ? alone(edits.value, i, edit) : edits.value.map((old, j) => (j === i ? edit : old)));
  };
  const act = (kind: string, then: (ok: any) => void = () => {}, fields: Record<string, unknown> = {}) => {
    told.value = { state: "ready", message: "" };
    sync.ask(kind, fields).then(
      ({ ok }) => then(ok),
      (error: Error) => (told.value = { state: "error", message: error.message }),
    );
  };
  const copy = () =>
    act("code", async (ok) => {
      const copied = await navigator.clipboard?.writeText(ok.code).then(
        () => true,
        () => false,
      );
      code.value = { text: ok.code, copied: copied ?? false };
    });

  const chosen = edits.value[Math.min(current.value, edits.value.length - 1)];
  const dose = doseOf(chosen);
  const stale = dose !== null && chosen !== undefined && isStale(dose, prompt.value, chosen);
  const plain = columns.plain;
  const edited = page && moved.value ? savedColumn(edits.value, doses, plain) : columns.edited;
  const running = plain.state === "running" || edited.state === "running";
  const direction = shade.value;
  const plainValues = valuesOf(plain, direction);
  const editedValues = valuesOf(edited, direction);
  const most = fullShade(plainValues, editedValues);
  const shown = told.value.message ? told.value : status;
  const column = (which: "plain" | "edited", data: Column, values: ArrayLike<number>) => (
    <TextColumn
      name={which}
      column={data}
      now={prompt.value}
      values={values}
      most={most}
      theme={theme}
      onLook={(index) => (look.value = index === null ? null : { column: which, index })}
      onPick={page ? undefined : (index) => ask(`features at ${visible([...data.prompt_words, ...data.words][index] ?? "")}, ${which}`, { column: which, index })}
    />
  );
  const seen = look.value && (look.value.column === "plain" ? { column: plain, values: plainValues } : { column: edited, values: editedValues });

  return (
    <Frame
      title={HEADING}
      what={`${setup.model} · ${active.value} ${active.value === 1 ? "edit" : "edits"} ${page ? "when this was saved" : "live"}`}
      life={life}
      status={shown}
      verbs={
        <>
          <Verb label="run" why={why ?? "write both columns anew (Ctrl+Enter in the prompt)"} disabled={page} onAct={() => act("run")} />
          <Verb label="stop" why={why ?? "stop writing, keep the text"} disabled={page || !running} onAct={() => act("stop")} />
          <Verb label="dose" why={why ?? "measure effect and cost over the strengths, and keep the texts"} disabled={page || setup.directions.length === 0} onAct={() => act("dose", undefined, { edit: current.value })} />
          <Verb label="copy as code" why={why} disabled={page} onAct={copy} />
          <Verb
            label="save recipe"
            why={why ?? (setup.recipe ? `write ${setup.recipe}` : "give iv.Steer(..., recipe_path=...) to say where")}
            disabled={page || !setup.recipe}
            onAct={() => act("save", (ok) => (told.value = { state: "loading", message: `saved to ${ok.path}` }))}
          />
        </>
      }
      foot={<Foot setup={setup} columns={columns} chosen={chosen} dose={stale ? null : dose} />}
    >
      <PromptBox
        prompt={prompt.value}
        hasChat={setup.has_chat}
        disabled={page}
        onChange={(next) => sync.put("prompt", next)}
        onRun={() => act("run")}
      />
      {setup.directions.length === 0 && <p class="iv-empty">no direction to steer by: iv.Steer(model, directions=[direction])</p>}
      {edits.value.map((edit, i) => {
        const saved = doses[edit.direction];
        const fixed = page && !saved ? "no strengths were saved for this direction" : "";
        const step = page && saved ? gap(unpack(saved.strengths).data) : 0.1;
        return (
          <EditRow
            key={i}
            edit={edit}
            direction={setup.directions[edit.direction]!}
            limit={setup.limit}
            step={step}
            fixed={fixed}
            isSaved={page}
            onChange={(next) => change(i, next)}
            onDrop={() => sync.put("edits", edits.value.filter((_, j) => j !== i))}
          />
        );
      })}
      {setup.directions.length > 0 && (
        <div class="iv-steer-tools">
          {!page && <AddEdit setup={setup} onAdd={(i) => sync.put("edits", [...edits.value, newEdit(i)])} />}
          <label>
            shade by{" "}
            <select
              data-lm-suppress-shortcuts="true"
              class="iv-field"
              value={String(direction)}
              onChange={(event) => sync.put("shade", Number(event.currentTarget.value))}
            >
              <option value="-1" selected={direction === -1}>
                nothing
              </option>
              {setup.directions.map((known, i) => (
                <option key={i} value={String(i)} selected={direction === i}>
                  {readable(known.name)}
                </option>
              ))}
            </select>
          </label>
          <span class="iv-said" aria-live="polite">
            {seen && look.value ? sayToken(seen.column, seen.values, look.value.index) : ""}
          </span>
        </div>
      )}
      <div class="iv-steer-columns">
        {column("plain", plain, plainValues)}
        {column("edited", edited, editedValues)}
        <div class={stale ? "iv-stale" : ""}>
          <h4 class="iv-column-name">
            effect against cost{chosen && ` · ${readable(setup.directions[chosen.direction]!.name)}`}
            {stale && " · stale: prompt or edit changed"}
          </h4>
          {dose && chosen ? (
            <DosePlot
              strengths={unpack(dose.strengths).data}
              effect={unpack(dose.effect).data}
              cost={unpack(dose.cost).data}
              randomEffect={unpack(dose.random_effect).data}
              randomCost={unpack(dose.random_cost).data}
              here={strength(chosen)}
              name={(value) => (dose.edit.op === "out" ? (value ? "taken out" : "off") : `${steps(value)} steps`)}
            />
          ) : (
            <p class="iv-note">{page ? "not measured" : "not measured: press dose"}</p>
          )}
          {dose && (
            <div class="iv-note">
              effect: gain in summed probability of the {dose.words.length} words that one step raises most (
              {dose.words.slice(0, 6).map((word, i) => `${i ? ", " : ""}${visible(word.trim() || word)}`)}…)
            </div>
          )}
        </div>
      </div>
      <ActingList acting={acting} unit="activation" onOpen={open} />
      {code.value && (
        <div class="iv-code">
          <textarea class="iv-field" readOnly rows={7} aria-label="code" value={code.value.text} spellcheck={false} />
          <div>
            <span class="iv-note">{code.value.copied ? "copied" : "select it and copy"}</span>{" "}
            <Verb label="close" onAct={() => (code.value = null)} />
          </div>
        </div>
      )}
    </Frame>
  );
}

/** Whether a direction here is a feature that another widget of the page speaks of. */
function knows(setup: Setup, at: FeatureAt): boolean {
  const name = `feature ${at.feature}`;
  return setup.model === at.model && setup.directions.some((known) => known.name === name || known.name.startsWith(`${name} · `));
}

function bringUp(root: HTMLElement): boolean {
  root.scrollIntoView?.({ block: "nearest" });
  return true;
}

/** On a saved page only one direction moves at a time: its strengths were run one by one. */
function alone(edits: EditForm[], i: number, edit: EditForm): EditForm[] {
  return edits.map((old, j) => (j === i ? edit : old.op === "out" ? { ...old, on: false } : { ...old, coefficient: 0 }));
}

function savedColumn(edits: EditForm[], doses: (Dose | null)[], plain: Column): Column {
  const edit = edits.find(isActive);
  const dose = edit && doses[edit.direction];
  if (!edit || !dose) return plain;
  return dose.texts[nearest(unpack(dose.strengths).data, strength(edit))] ?? plain;
}

function gap(strengths: ArrayLike<number>): number {
  return strengths.length > 1 ? Math.abs(strengths[1]! - strengths[0]!) : 1;
}

function sayToken(column: Column, values: ArrayLike<number>, index: number): string {
  const word = [...column.prompt_words, ...column.words][index];
  if (word === undefined) return "";
  const value = values[index] ?? NaN;
  return `${visible(word)} · ${Number.isFinite(value) ? `${digits(value, true)} steps` : "not read yet"}`;
}

interface TextProps {
  name: "plain" | "edited";
  column: Column;
  now: Prompt;
  values: ArrayLike<number>;
  most: number;
  theme: Signal<Theme>;
  onLook(index: number | null): void;
  onPick?: (index: number) => void;
}

function TextColumn({ name, column, now, values, most, theme, onLook, onPick }: TextProps) {
  const stale = column.prompt !== null && !same(column.prompt, now);
  const words = [...column.prompt_words, ...column.words];
  const said = [
    name,
    { empty: "", running: "writing…", done: "", stopped: "stopped", error: "failed" }[column.state],
    stale ? "stale: the prompt changed, press run" : "",
    column.mixed ? "the edits moved while it wrote" : "",
  ];
  return (
    <div class={stale ? "iv-stale" : ""} data-column={name} data-state={column.state}>
      <h4 class="iv-column-name" aria-live="polite">
        {said.filter(Boolean).join(" · ")}
      </h4>
      {words.length === 0 ? (
        <p class="iv-note">{column.state === "running" ? "reading the prompt…" : "nothing written yet: press run"}</p>
      ) : (
        <Shaded
          label={`${name} text`}
          words={words}
          soft={column.prompt_words.length}
          values={values}
          most={most}
          theme={theme.value}
          unit="steps"
          onLook={onLook}
          onPick={onPick}
        />
      )}
    </div>
  );
}

interface PromptProps {
  prompt: Prompt;
  hasChat: boolean;
  disabled: boolean;
  onChange(prompt: Prompt): void;
  onRun(): void;
}

function PromptBox({ prompt, hasChat, disabled, onChange, onRun }: PromptProps) {
  return (
    <div class="iv-prompt">
      {prompt.chat &&
        prompt.before.map((message, i) => (
          <div key={i} class="iv-prompt-before">
            {message.role}: {readable(message.content)}
          </div>
        ))}
      <div class="iv-prompt-row">
        <textarea
          class="iv-field"
          rows={Math.min(6, prompt.text.split("\n").length)}
          aria-label={prompt.chat ? "the user's message" : "prompt"}
          placeholder={prompt.chat ? "the user's message" : "a text to go on from"}
          value={prompt.text}
          disabled={disabled}
          spellcheck={false}
          onInput={(event) => onChange({ ...prompt, text: event.currentTarget.value })}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
            event.preventDefault();
            event.stopPropagation();
            onRun();
          }}
        />
        {hasChat && (
          <Verb
            label="chat"
            why={disabled ? NO_KERNEL : "send it as a chat message"}
            disabled={disabled}
            pressed={prompt.chat}
            onAct={() => onChange({ ...prompt, chat: !prompt.chat })}
          />
        )}
      </div>
    </div>
  );
}

function AddEdit({ setup, onAdd }: { setup: Setup; onAdd(direction: number): void }) {
  return (
    <label>
      add an edit{" "}
      <select
        data-lm-suppress-shortcuts="true"
        class="iv-field"
        value=""
        onChange={(event) => {
          if (event.currentTarget.value !== "") onAdd(Number(event.currentTarget.value));
          event.currentTarget.value = "";
        }}
      >
        <option value="">of…</option>
        {setup.directions.map((direction, i) => (
          <option key={i} value={String(i)}>
            {readable(direction.name)}
          </option>
        ))}
      </select>
    </label>
  );
}

function Foot({ setup, columns, chosen, dose }: { setup: Setup; columns: Columns; chosen: EditForm | undefined; dose: Dose | null }) {
  const direction = chosen && setup.directions[chosen.direction];
  return (
    <>
      {direction && (
        <span>
          {direction.unit === "step"
            ? `1 step of ${readable(direction.name)} = ${digits(direction.scale)} raw (${direction.scale_kind}, n = ${direction.scale_n})`
            : `${readable(direction.name)} has no natural step: raw units`}
        </span>
      )}
      <span>greedy, {setup.max_new_tokens} tokens</span>
      {columns.attached.length > 0 && <span>attached and ignored here: {columns.attached.map(readable).join(", ")}</span>}
      {!dose && <span>dose: not measured</span>}
      <span>controls: not run</span>
    </>
  );
}

export default {
  render: (view: View) => mount(view, "steer", HEADING, Steer),
};
