import { useState } from "preact/hooks";
import { readable } from "./glyphs";
import { units, where, type DirectionInfo, type EditForm } from "./steering";

interface Props {
  edit: EditForm;
  direction: DirectionInfo;
  limit: number;
  step: number;
  /** Why it cannot be moved; empty when it can. */
  fixed: string;
  /** Only the strength can change, as on a saved page. */
  isSaved: boolean;
  onChange(edit: EditForm): void;
  onDrop(): void;
}

/** One edit: a switch, a slider in natural steps, the units beside it, and how it is applied. */
export function EditRow({ edit, direction, limit, step, fixed, isSaved, onChange, onDrop }: Props) {
  const [isOpen, open] = useState(false);
  const share = (edit.coefficient / limit + 1) / 2;
  const moving = edit.on && edit.op === "add";
  const fill = moving ? { "--iv-from": `${Math.min(share, 0.5) * 100}%`, "--iv-to": `${Math.max(share, 0.5) * 100}%` } : {};
  const told = units(edit, direction);
  return (
    <>
      <div class="iv-edit">
        <button
          type="button"
          class="iv-switch"
          aria-pressed={edit.on}
          title={fixed || (edit.on ? "switch off" : "switch on")}
          disabled={fixed !== ""}
          data-lm-suppress-shortcuts="true"
          onClick={() => onChange({ ...edit, on: !edit.on })}
        >
          <span aria-hidden="true">{edit.on ? "●" : "○"}</span> {readable(direction.name)}
        </button>
        {edit.op === "add" ? (
          <input
            data-lm-suppress-shortcuts="true"
            class="iv-slider"
            type="range"
            min={-limit}
            max={limit}
            step={step}
            value={edit.coefficient}
            disabled={fixed !== "" || !edit.on}
            title={fixed}
            aria-label={`${readable(direction.name)}, in ${direction.unit === "step" ? "natural steps" : "raw units"}`}
            aria-valuetext={told}
            style={fill}
            onInput={(event) => onChange({ ...edit, coefficient: Number(event.currentTarget.value) })}
            onDblClick={() => onChange({ ...edit, coefficient: 0 })}
          />
        ) : (
          <span class="iv-edit-out">{edit.on ? "the stream keeps nothing along it" : ""}</span>
        )}
        <span class="iv-edit-units iv-num">{told}</span>
      </div>
      <div class="iv-edit-how">
        <button
          type="button"
          class="iv-how"
          aria-expanded={isOpen}
          disabled={isSaved}
          data-lm-suppress-shortcuts="true"
          onClick={() => open(!isOpen)}
        >
          {where(edit, direction)} {!isSaved && (isOpen ? "▴" : "▾")}
        </button>
        {isOpen && <How edit={edit} direction={direction} onChange={onChange} onDrop={onDrop} />}
      </div>
    </>
  );
}

function How({ edit, direction, onChange, onDrop }: Pick<Props, "edit" | "direction" | "onChange" | "onDrop">) {
  return (
    <div class="iv-how-row">
      <Pick
        label="operation"
        value={edit.op}
        options={{ add: "add", out: "take out" }}
        onPick={(op) => onChange({ ...edit, op, layers: op === "out" && direction.layered ? "all" : "site" })}
      />
      {direction.layered && (
        <Pick
          label="layers"
          value={edit.layers}
          options={{ site: direction.site, all: "all layers" }}
          onPick={(layers) => onChange({ ...edit, layers })}
        />
      )}
      <Pick
        label="scope"
        value={edit.scope}
        options={{ all: "all tokens", prompt: "prompt only", generated: "generated only" }}
        onPick={(scope) => onChange({ ...edit, scope })}
      />
      <Pick
        label="schedule"
        value={edit.schedule}
        options={{ constant: "constant", ramp: "grows", decay: "decays" }}
        onPick={(schedule) => onChange({ ...edit, schedule })}
      />
      {edit.schedule !== "constant" && (
        <label>
          {edit.schedule === "ramp" ? "over" : "halves every"}{" "}
          <input
            class="iv-field iv-length"
            type="number"
            min={1}
            max={1000}
            value={edit.length}
            onChange={(event) => onChange({ ...edit, length: Math.max(1, Math.round(Number(event.currentTarget.value)) || 1) })}
          />{" "}
          tokens
        </label>
      )}
      <button type="button" class="iv-verb" data-lm-suppress-shortcuts="true" onClick={onDrop}>
        drop this edit
      </button>
    </div>
  );
}

function Pick<T extends string>(props: { label: string; value: T; options: Record<T, string>; onPick(value: T): void }) {
  return (
    <select
      data-lm-suppress-shortcuts="true"
      class="iv-field"
      aria-label={props.label}
      value={props.value}
      onChange={(event) => props.onPick(event.currentTarget.value as T)}
    >
      {(Object.entries(props.options) as [T, string][]).map(([value, label]) => (
        <option key={value} value={value} selected={value === props.value}>
          {label}
        </option>
      ))}
    </select>
  );
}
