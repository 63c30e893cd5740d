import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import type { FeatureAt } from "../bus";
import { css, mixed, type Theme } from "../components/colour";
import { said, title } from "../components/feature_table";
import { Frame, Verb, type Status } from "../components/frame";
import { readable } from "../components/glyphs";
import { mount, type Scene } from "../components/mount";
import { boxOf, Plot, ranks, type Box, type Spot } from "../components/scatter";
import { useSelection } from "../components/selection";
import { arrived, unpack, type Numbers, type Packed } from "../wire";
import type { View } from "../sync";

const HEADING = "Feature map";
const HEIGHT = 460;
const WIDE = 800;
const SHADES = 24;
// A press that moves less than this is a click.
const CLICK = 4;

interface About {
  n_features: number;
  names: string[];
  how: string;
  n_placed: number;
  model: string;
  site: string;
  dictionary: string;
  about: string;
}

function FeatureMap({ sync, theme, bus, ended }: Scene) {
  const about = sync.trait<About>("about").value;
  const pointsWire = sync.trait<Packed>("points");
  const columns = sync.trait<Record<string, Packed>>("columns");
  const labels = sync.trait<string[]>("labels").value;
  const colour = sync.trait<string>("colour");
  const status = sync.trait<Status>("status").value;
  const told = useSignal<Status>({ state: "ready", message: "" });
  const fetched = useSignal<Record<string, Numbers>>({});
  const heard = useSignal<Record<number, string>>({});
  const at = useSignal<number | null>(null);
  const box = useSignal<Box | null>(null);
  const points = useComputed(() => unpack(pointsWire.value).data);
  const { selected, put } = useSelection(sync, bus, about, ended);
  const values = useComputed<Numbers | null>(() => {
    const sent = columns.value[colour.value];
    return sent ? unpack(sent).data : (fetched.value[colour.value] ?? null);
  });
  const page = sync.life.value === "page";
  const fail = (error: Error) => (told.value = { state: "error", message: error.message });

  useEffect(() => {
    const name = colour.value;
    if (page || values.value || !name) return;
    sync.ask("column", { name }).then(({ ok, buffers }) => {
      fetched.value = { ...fetched.value, [ok.name]: unpack(arrived(ok.values, buffers)).data };
    }, fail);
  }, [colour.value, page]);
  const isUnnamed = labels.length === 0 && !page && at.value !== null && heard.value[at.value] === undefined;
  useEffect(() => {
    const feature = at.value;
    if (!isUnnamed || feature === null) return;
    const timer = setTimeout(() => {
      sync.ask("say", { feature }).then(({ ok }) => (heard.value = { ...heard.value, [ok.feature]: ok.label }), fail);
    }, 80);
    return () => clearTimeout(timer);
  }, [isUnnamed, at.value]);

  const open = (feature: number) => {
    told.value = { state: "ready", message: "" };
    if (page) {
      const place: FeatureAt = { model: about.model, dictionary: about.dictionary, site: about.site, feature };
      if (!bus?.tell("feature", place)) fail(new Error(`the page of feature ${feature} is not on this page`));
      return;
    }
    sync.ask("follow", { feature }).catch(fail);
  };
  const select = (features: number[], isMore: boolean) => put(new Set(isMore ? [...selected.value, ...features] : features));
  const chosen = at.value;
  const label = chosen === null ? "" : (labels[chosen] ?? heard.value[chosen] ?? "");
  const value = chosen === null || !values.value ? NaN : values.value[chosen]!;
  return (
    <Frame
      title={HEADING}
      what={[about.model, about.site, about.about].filter(Boolean).map(readable).join(" · ")}
      life={sync.life.value}
      status={told.value.message ? told.value : status}
      verbs={
        <>
          {about.names.length > 0 && (
            <label>
              colour by{" "}
              <select data-lm-suppress-shortcuts="true" class="iv-field iv-map-colour" value={colour.value} onChange={(event) => sync.put("colour", event.currentTarget.value)}>
                {about.names.map((name) => {
                  const isHere = !page || name in columns.value;
                  return (
                    <option key={name} value={name} disabled={!isHere} selected={name === colour.value}>
                      {title(name)}
                    </option>
                  );
                })}
              </select>
            </label>
          )}
          <Verb label="zoom to selected" disabled={selected.value.size === 0} onAct={() => (box.value = boxOf(points.value, selected.value))} />
          <Verb label="show all" disabled={box.value === null} onAct={() => (box.value = null)} />
          <Verb label="select none" disabled={selected.value.size === 0} onAct={() => select([], false)} />
        </>
      }
      foot={
        <>
          <span>{about.how}</span>
          <span>{about.n_placed.toLocaleString("en-US")} features</span>
          {about.n_placed < about.n_features && <span>{(about.n_features - about.n_placed).toLocaleString("en-US")} write nothing and have no place</span>}
          <span>{selected.value.size.toLocaleString("en-US")} selected</span>
          <span>drag to draw round a set, with Shift to add; click to open</span>
        </>
      }
    >
      {about.n_placed === 0 ? (
        <p class="iv-empty">no feature has a place</p>
      ) : (
        <Canvas
          points={points.value}
          box={box.value}
          values={values.value}
          selected={selected.value}
          at={chosen}
          theme={theme.value}
          label={`${about.n_placed} features, ${about.how}; arrow keys move, Enter opens, Space selects`}
          onLook={(feature) => (at.value = feature)}
          onOpen={open}
          onSelect={select}
        />
      )}
      <div class="iv-map-foot">
        <div class="iv-said" aria-live="polite">
          {chosen === null ? "\u00a0" : [`feature ${chosen.toLocaleString("en-US")}`, label && readable(label), Number.isFinite(value) ? `${title(colour.value)} ${said(colour.value, value)}` : ""].filter(Boolean).join(" · ")}
        </div>
        {values.value && <Legend values={values.value} name={colour.value} theme={theme.value} />}
      </div>
    </Frame>
  );
}

function ramp(theme: Theme, share: number): string {
  // From a grey that is seen on the paper to the accent; the value is in print as well, never in colour alone.
  return css(mixed(theme, share));
}

function Legend({ values, name, theme }: { values: Numbers; name: string; theme: Theme }) {
  const known = Array.from(values).filter(Number.isFinite).sort((a, b) => a - b);
  if (known.length === 0) return null;
  const pick = (share: number) => said(name, known[Math.round(share * (known.length - 1))]!);
  return (
    <div class="iv-legend" role="img" aria-label={`${title(name)}: least ${pick(0)}, median ${pick(0.5)}, largest ${pick(1)}`}>
      <span>{pick(0)}</span>
      <span class="iv-legend-bar">
        {Array.from({ length: 8 }, (_, i) => (
          <i key={i} style={{ background: ramp(theme, i / 7) }} />
        ))}
      </span>
      <span>{pick(1)}</span>
      <span class="iv-legend-note">shades by rank, median {pick(0.5)}</span>
    </div>
  );
}

interface CanvasProps {
  points: Numbers;
  box: Box | null;
  values: Numbers | null;
  selected: Set<number>;
  at: number | null;
  theme: Theme;
  label: string;
  onLook(feature: number | null): void;
  onOpen(feature: number): void;
  onSelect(features: number[], isMore: boolean): void;
}

const ARROWS: Record<string, Spot> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function Canvas(props: CanvasProps) {
  const { points, box, values, selected, theme } = props;
  const holder = useRef<HTMLDivElement>(null);
  const under = useRef<HTMLCanvasElement>(null);
  const over = useRef<HTMLCanvasElement>(null);
  const plot = useRef<Plot | null>(null);
  const line = useRef<Spot[] | null>(null);
  const [width, setWidth] = useState(WIDE);

  useEffect(() => {
    const observer = new ResizeObserver(() => setWidth(Math.max(200, holder.current?.clientWidth || WIDE)));
    observer.observe(holder.current!);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    plot.current = new Plot(points, box ?? boxOf(points), width, HEIGHT);
    draw(under.current, plot.current, values, theme);
    drawOver();
  }, [points, box, values, theme, width]);
  useEffect(() => drawOver(), [selected, props.at]);

  const drawOver = () => {
    const pen = sized(over.current, width);
    if (!pen || !plot.current) return;
    const at = plot.current.at;
    pen.strokeStyle = css(theme.ink);
    pen.lineWidth = 1;
    for (const i of selected) pen.strokeRect(at[2 * i]! - 4.5, at[2 * i + 1]! - 4.5, 9, 9);
    if (props.at !== null) {
      pen.beginPath();
      pen.arc(at[2 * props.at]!, at[2 * props.at + 1]!, 7, 0, 7);
      pen.lineWidth = 2;
      pen.stroke();
    }
    if (line.current && line.current.length > 1) {
      pen.beginPath();
      line.current.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.closePath();
      pen.setLineDash([4, 3]);
      pen.lineWidth = 1;
      pen.stroke();
      pen.setLineDash([]);
    }
  };
  const spot = (event: PointerEvent): Spot => {
    const rect = over.current!.getBoundingClientRect();
    return [event.clientX - rect.left, event.clientY - rect.top];
  };
  const onMove = (event: PointerEvent) => {
    const here = spot(event);
    if (line.current) {
      line.current.push(here);
      drawOver();
      return;
    }
    props.onLook(plot.current?.nearest(...here) ?? null);
  };
  const onUp = (event: PointerEvent) => {
    const drawn = line.current;
    line.current = null;
    if (!drawn) return;
    const reach = Math.max(...drawn.map(([x, y]) => Math.hypot(x - drawn[0]![0], y - drawn[0]![1])));
    if (reach < CLICK) {
      const hit = plot.current?.nearest(...drawn[0]!) ?? null;
      if (hit !== null) props.onOpen(hit);
    } else {
      props.onSelect(plot.current?.inside(drawn) ?? [], event.shiftKey);
    }
    drawOver();
  };
  const onKey = (event: KeyboardEvent) => {
    const way = ARROWS[event.key];
    const from = props.at ?? plot.current?.nearest(width / 2, HEIGHT / 2, Math.max(width, HEIGHT)) ?? null;
    if (way && from !== null) props.onLook(props.at === null ? from : (plot.current?.towards(from, ...way) ?? from));
    else if (event.key === "Enter" && props.at !== null) props.onOpen(props.at);
    else if (event.key === " " && props.at !== null) toggle(props.at);
    else if (event.key === "Escape") props.onLook(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const toggle = (feature: number) => {
    const next = new Set(selected);
    if (!next.delete(feature)) next.add(feature);
    props.onSelect([...next], false);
  };
  return (
    <div
      ref={holder}
      class="iv-map"
      role="application"
      aria-label={props.label}
      tabIndex={0}
      data-lm-suppress-shortcuts="true"
      style={{ height: `${HEIGHT}px` }}
      onKeyDown={onKey}
      onPointerDown={(event) => {
        if (event.button !== 0) return;
        holder.current?.setPointerCapture?.(event.pointerId);
        line.current = [spot(event)];
      }}
      onPointerMove={onMove}
      onPointerUp={onUp}
      onPointerCancel={() => {
        line.current = null;
        drawOver();
      }}
      onPointerLeave={() => line.current === null && props.onLook(null)}
    >
      <canvas ref={under} aria-hidden="true" />
      <canvas ref={over} aria-hidden="true" />
    </div>
  );
}

/** A canvas of the right size in device pixels, empty; null where nothing can be drawn. */
function sized(canvas: HTMLCanvasElement | null, width: number): CanvasRenderingContext2D | null {
  const pen = canvas?.getContext?.("2d");
  if (!canvas || !pen) return null;
  const dense = globalThis.devicePixelRatio || 1;
  canvas.width = Math.round(width * dense);
  canvas.height = Math.round(HEIGHT * dense);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${HEIGHT}px`;
  pen.setTransform(dense, 0, 0, dense, 0, 0);
  return pen;
}

function draw(canvas: HTMLCanvasElement | null, plot: Plot, values: Numbers | null, theme: Theme): void {
  const pen = sized(canvas, plot.width);
  if (!pen) return;
  const n = plot.at.length / 2;
  const size = n > 20_000 ? 2 : n > 3000 ? 3 : 6;
  const shares = values && ranks(values);
  // One colour at a time, the largest last and so on top: setting a colour costs more than a point.
  const shelves: number[][] = Array.from({ length: SHADES + 1 }, () => []);
  for (let i = 0; i < n; i++) {
    const share = shares ? shares[i]! : 0;
    shelves[Number.isFinite(share) ? 1 + Math.min(SHADES - 1, Math.floor(share * SHADES)) : 0]!.push(i);
  }
  shelves.forEach((shelf, k) => {
    pen.strokeStyle = ramp(theme, 0);
    pen.fillStyle = ramp(theme, k === 0 ? 0 : (k - 1) / (SHADES - 1));
    for (const i of shelf) {
      const [x, y] = [plot.at[2 * i]!, plot.at[2 * i + 1]!];
      if (!Number.isFinite(x)) continue;
      if (size > 4) {
        pen.beginPath();
        pen.arc(x, y, size / 2, 0, 7);
        if (k === 0) pen.stroke();
        else pen.fill();
      } else if (k === 0) pen.strokeRect(x - size / 2, y - size / 2, size, size);
      else pen.fillRect(x - size / 2, y - size / 2, size, size);
    }
  });
}

export default {
  render: (view: View) => mount(view, "map", HEADING, FeatureMap),
};
