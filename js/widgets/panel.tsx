import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Frame, Verb, type Status } from "../components/frame";
import { readable } from "../components/glyphs";
import { mount, type Scene } from "../components/mount";
import { digits } from "../components/numbers";
import type { View } from "../sync";

const HEADING = "Open in this kernel";
// Only where the host does not tell when a kernel is gone.
const EVERY_MS = 30_000;

interface Slider {
  value: number;
  low: number;
  high: number;
  step: number;
  unit: string;
}

interface Attached {
  name: string;
  on: boolean;
  edits: { label: string; slider: Slider | null }[];
}

interface ModelLine {
  key: number;
  name: string;
  n_layers: number | null;
  d_model: number | null;
  said: string;
  edits: Attached[];
}

interface Dashboard {
  key: number;
  name: string;
  said: string;
  named: { feature: number; text: string }[];
}

interface Seen {
  models: ModelLine[];
  dictionaries: { name: string; said: string }[];
  directions: { name: string; site: string; said: string }[];
  dashboards: Dashboard[];
  runs: { model: string; said: string }[];
  trainings: { model: string; said: string }[];
  memory: { process: number; models: number; dictionaries: number; gpus: { name: string; used: number; total: number }[] };
}

function Panel({ sync, ended }: Scene) {
  const seen = sync.trait<Seen>("seen").value;
  const status = sync.trait<Status>("status").value;
  const trouble = useSignal("");
  const life = sync.life.value;
  const isLive = life === "live";
  const ask = (kind: string, fields: Record<string, unknown> = {}) => {
    trouble.value = "";
    return sync.ask(kind, fields, 20_000).then(
      () => {},
      (error: Error) => {
        trouble.value = error.message;
      },
    );
  };
  useEffect(() => {
    // Python tells what changes; what changed before anyone listened is asked for once.
    if (isLive) sync.ask("refresh", {}, 20_000).catch(() => {});
    if (life === "page" || sync.isTold) return;
    let waits = false;
    const timer = setInterval(() => {
      if (waits || document.hidden) return;
      waits = true;
      const done = () => (waits = false);
      sync.ask("hello", {}, 10_000).then(done, done);
    }, EVERY_MS);
    const stop = () => clearInterval(timer);
    ended.addEventListener("abort", stop);
    return stop;
  }, [isLive]);
  const models = seen.models ?? [];
  const live = models.reduce((sum, model) => sum + model.edits.filter((one) => one.on).length, 0);
  const any = models.some((model) => model.edits.length > 0);
  return (
    <Frame
      title={isLive ? HEADING : "Was open in the kernel"}
      what={`${live} ${live === 1 ? "edit" : "edits"} ${isLive ? "live" : "live when this was saved"}`}
      life={life}
      status={status}
      verbs={<Verb label="detach all" disabled={!isLive || !any} why={isLive ? "take every edit off every network" : "no kernel answers"} onAct={() => void ask("detach_all")} />}
      foot={<Memory seen={seen} />}
    >
      {trouble.value && (
        <p class="iv-note iv-note-bad" role="alert">
          {trouble.value}
        </p>
      )}
      {models.length === 0 && <p class="iv-empty">no network is open: iv.open_model("pocket")</p>}
      {models.map((model) => (
        <section class="iv-panel-model" key={model.key} aria-label={readable(model.name)}>
          <div class="iv-panel-line">
            <b>{readable(model.name)}</b>
            <span class="iv-panel-said">
              {model.n_layers !== null && `${model.n_layers} layers · `}
              {readable(model.said)}
            </span>
          </div>
          {model.edits.length === 0 && <p class="iv-note">no edit is attached</p>}
          {model.edits.map((one) => (
            <Edits key={one.name} model={model.key} one={one} isLive={isLive} ask={ask} />
          ))}
        </section>
      ))}
      <List title="dictionaries" lines={seen.dictionaries ?? []} />
      <Dashboards dashboards={seen.dashboards ?? []} isLive={isLive} ask={ask} />
      <List title="directions" lines={(seen.directions ?? []).map((one) => ({ name: one.name, said: `${one.site} · ${one.said}` }))} />
      <List title="being written" lines={(seen.runs ?? []).map((one) => ({ name: one.model, said: one.said }))} />
      <List title="trainings" lines={(seen.trainings ?? []).map((one) => ({ name: one.model, said: one.said }))} />
    </Frame>
  );
}

interface DashboardsProps {
  dashboards: Dashboard[];
  isLive: boolean;
  ask(kind: string, fields: Record<string, unknown>): Promise<void>;
}

/** Features that were read, and those among them that have a name, each a way to its page. */
function Dashboards({ dashboards, isLive, ask }: DashboardsProps) {
  if (dashboards.length === 0) return null;
  return (
    <section class="iv-panel-list" aria-label="dashboards">
      <h4>dashboards</h4>
      {dashboards.map((one) => (
        <div key={one.key}>
          <div class="iv-panel-line">
            <span>{readable(one.name)}</span>
            <span class="iv-panel-said">{readable(one.said)}</span>
          </div>
          {one.named.length > 0 && (
            <div class="iv-panel-named">
              {one.named.map(({ feature, text }) => (
                <button
                  type="button"
                  class="iv-panel-feature"
                  key={feature}
                  disabled={!isLive}
                  title={isLive ? `open the page of feature ${feature}` : "no kernel answers"}
                  data-lm-suppress-shortcuts="true"
                  onClick={() => void ask("open", { dashboard: one.key, feature })}
                >
                  {feature.toLocaleString("en-US")} {readable(text)}
                </button>
              ))}
            </div>
          )}
        </div>
      ))}
    </section>
  );
}

interface EditsProps {
  model: number;
  one: Attached;
  isLive: boolean;
  ask(kind: string, fields: Record<string, unknown>): Promise<void>;
}

function Edits({ model, one, isLive, ask }: EditsProps) {
  const name = readable(one.name);
  const at = { model, name: one.name };
  return (
    <div class="iv-panel-edit">
      <button
        type="button"
        class="iv-switch"
        role="switch"
        aria-checked={one.on}
        aria-label={`${name}, ${one.on ? "on" : "off"}`}
        title={isLive ? (one.on ? "switch off" : "switch on") : "no kernel answers"}
        disabled={!isLive}
        data-lm-suppress-shortcuts="true"
        onClick={() => void ask("switch", { ...at, on: !one.on })}
      >
        <span aria-hidden="true">{one.on ? "●" : "○"}</span> {name}
      </button>
      <div class="iv-panel-strengths">
        {one.edits.map((edit, i) =>
          edit.slider ? (
            <Strength key={i} label={readable(edit.label)} slider={edit.slider} isLive={isLive} onMove={(value) => ask("slide", { ...at, edit: i, value })} />
          ) : (
            <span key={i} class="iv-panel-said">
              {readable(edit.label)}
            </span>
          ),
        )}
      </div>
      <Verb label="detach" disabled={!isLive} why={isLive ? `take ${name} off` : "no kernel answers"} onAct={() => void ask("detach", at)} />
    </div>
  );
}

/** A slider that shows at once where it is held; one request is under way at a time, and the newest value follows it. */
function Strength(props: { label: string; slider: Slider; isLive: boolean; onMove(value: number): Promise<void> }) {
  const { slider } = props;
  const held = useSignal<number | null>(null);
  const wanted = useRef<number | null>(null);
  const isUnderWay = useRef(false);
  const next = () => {
    const value = wanted.current;
    if (value === null || isUnderWay.current) return;
    wanted.current = null;
    isUnderWay.current = true;
    void props.onMove(value).then(() => {
      isUnderWay.current = false;
      if (wanted.current === null) held.value = null;
      next();
    });
  };
  const value = held.value ?? slider.value;
  const said = `${digits(value, slider.unit !== "×")} ${slider.unit}`;
  return (
    <label class="iv-panel-strength" title={props.label}>
      <input
        data-lm-suppress-shortcuts="true"
        type="range"
        min={slider.low}
        max={slider.high}
        step={slider.step}
        value={value}
        disabled={!props.isLive}
        aria-label={props.label}
        aria-valuetext={said}
        onInput={(event) => {
          held.value = wanted.current = Number(event.currentTarget.value);
          next();
        }}
      />
      <span class="iv-num">{said}</span>
    </label>
  );
}

function List({ title, lines }: { title: string; lines: { name: string; said: string }[] }) {
  if (lines.length === 0) return null;
  return (
    <section class="iv-panel-list" aria-label={title}>
      <h4>{title}</h4>
      {lines.map((line, i) => (
        <div class="iv-panel-line" key={i}>
          <span>{readable(line.name)}</span>
          <span class="iv-panel-said">{readable(line.said)}</span>
        </div>
      ))}
    </section>
  );
}

function Memory({ seen }: { seen: Seen }) {
  const memory = seen.memory;
  if (!memory) return <span>memory: not known</span>;
  return (
    <>
      {memory.process > 0 && <span>{size(memory.process)} in use by this kernel</span>}
      <span>{size(memory.models)} of weights</span>
      {memory.dictionaries > 0 && <span>{size(memory.dictionaries)} of dictionaries</span>}
      {memory.gpus.map((gpu, i) => (
        <span key={i}>
          {readable(gpu.name)}: {size(gpu.used)} of {size(gpu.total)}
        </span>
      ))}
    </>
  );
}

function size(bytes: number): string {
  return bytes >= 1e9 ? `${digits(bytes / 1e9)} GB` : `${digits(bytes / 1e6)} MB`;
}

export default {
  render: (view: View) => mount(view, "panel", HEADING, Panel),
};

