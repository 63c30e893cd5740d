import { useComputed, useSignal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Bus, FeatureAt } from "../bus";
import type { Sync } from "../sync";
import { unpack } from "../wire";
import type { Theme } from "./colour";
import { Examples } from "./examples";
import { examplesOf, largest, quantile, type FeatureWire } from "./feature";
import { Choice, Verb, type Status } from "./frame";
import { readable } from "./glyphs";
import { Histogram } from "./histogram";
import { digits, percent } from "./numbers";
import { OwnText } from "./own_text";
import { Partners } from "./partners";
import { FiredOn, Written } from "./written";

export const NO_KERNEL = "a saved page has no kernel";
const FIRST_WORD: Status = { state: "ready", message: "" };

export interface Sheet {
  view: Signal<FeatureWire | null>;
  /** A feature that was asked for and has not come yet. */
  asked: Signal<number | null>;
  told: Signal<Status>;
  open(feature: number): void;
  steer(): void;
  /** Measure what is lost in the examples without the feature. */
  effects(): void;
}

/** What a sheet can be asked, in a notebook of Python and on a page of the other widgets. */
export function useSheet(sync: Sync, bus: Bus | undefined): Sheet {
  const view = sync.trait<FeatureWire | null>("view");
  const asked = useSignal<number | null>(null);
  const told = useSignal<Status>(FIRST_WORD);
  const status = sync.trait<Status>("status");
  const fail = (message: string) => {
    asked.value = null;
    told.value = { state: "error", message };
  };
  useEffect(() => {
    if (asked.value !== null && (view.value?.feature === asked.value || status.value.state === "error")) asked.value = null;
  }, [view.value, status.value, asked.value]);
  // What was said of one feature is not said of the next.
  useEffect(() => {
    told.value = FIRST_WORD;
  }, [view.value?.feature]);
  const addressed = (feature: number): FeatureAt | null => {
    const known = view.value;
    return known && { model: known.model, dictionary: known.dictionary, site: known.site, feature };
  };
  return {
    view,
    asked,
    told,
    open(feature) {
      told.value = FIRST_WORD;
      if (sync.life.value === "page") {
        if (!bus?.tell("feature", addressed(feature))) fail(`feature ${feature} is not on this page`);
        return;
      }
      asked.value = feature;
      sync.ask("go", { feature }).catch((error: Error) => fail(error.message));
    },
    effects() {
      told.value = FIRST_WORD;
      sync.ask("effects").catch((error: Error) => fail(error.message));
    },
    steer() {
      told.value = FIRST_WORD;
      const known = view.value;
      if (!known) return;
      if (sync.life.value === "page") {
        if (!bus?.tell("steer", addressed(known.feature))) fail("no Steer on this page knows this feature");
        return;
      }
      sync.ask("steer").then(
        ({ ok }) => (told.value = { state: "loading", message: `Steer took “${ok.name}”` }),
        (error: Error) => fail(error.message),
      );
    },
  };
}

/** Previous, go to a number, next; shading; to Steer. */
export function SheetVerbs({ sync, sheet }: { sync: Sync; sheet: Sheet }) {
  const view = sheet.view.value;
  const shade = sync.trait<"activation" | "effect">("shade");
  if (!view) return null;
  const page = sync.life.value === "page";
  const isGone = sync.life.value === "silent";
  const here = sheet.asked.value ?? view.feature;
  const last = view.n_features === null ? Infinity : view.n_features - 1;
  const why = isGone ? "no kernel answers" : page ? NO_KERNEL : view.live.go ? undefined : "this page was made of one feature alone";
  return (
    <>
      {view.examples.effects && (
        <Choice
          label="tokens shaded by"
          value={shade.value}
          options={[
            { value: "activation", label: "activation", why: "shade tokens by the feature's activation" },
            { value: "effect", label: "loss effect", why: "shade tokens by the rise of the next token's loss when the feature is taken out" },
          ]}
          onPick={(value) => sync.put("shade", value)}
        />
      )}
      {!page && !view.examples.effects && view.examples.words.length > 0 && (
        <Verb
          label="measure loss"
          why={view.live.effects ? "run the examples with the feature taken out: the rise of each next token's loss" : "there is no network to run the examples in"}
          disabled={isGone || !view.live.effects}
          onAct={() => sheet.effects()}
        />
      )}
      {!page && (
        <span class="iv-go">
          <Verb label="‹" why={why ?? "previous feature"} disabled={isGone || !view.live.go || here <= 0} onAct={() => sheet.open(here - 1)} />
          <input
            class="iv-field iv-num"
            aria-label="go to feature number"
            inputMode="numeric"
            title={why ?? "go to a feature: type its number, then Enter"}
            disabled={isGone || !view.live.go}
            value={String(here)}
            onChange={(event) => {
              const wanted = Number(event.currentTarget.value.replace(/[,\s]/g, ""));
              if (Number.isInteger(wanted) && wanted >= 0 && wanted <= last) sheet.open(wanted);
              else {
                event.currentTarget.value = String(here);
                sheet.told.value = { state: "error", message: `a feature's number, 0 to ${last}` };
              }
            }}
            onKeyDown={(event) => event.stopPropagation()}
          />
          <Verb label="›" why={why ?? "next feature"} disabled={isGone || !view.live.go || here >= last} onAct={() => sheet.open(here + 1)} />
        </span>
      )}
      <Verb
        label="send to Steer"
        why={isGone ? "no kernel answers" : page ? "to the Steer on this page that knows this feature" : view.live.steer ? "add it as a direction to the newest Steer of this model" : "there is no model or dictionary"}
        disabled={isGone || (!page && !view.live.steer)}
        onAct={() => sheet.steer()}
      />
    </>
  );
}

export function sheetTitle(view: FeatureWire): string {
  return `Feature ${view.feature.toLocaleString("en-US")}${view.label ? ` · ${readable(view.label.text)}` : ""}`;
}

export function sheetWhat(view: FeatureWire): string {
  return [view.model, view.site, view.about || view.dictionary].filter(Boolean).map(readable).join(" · ");
}

/** The picture: numbers and words at the left; own text, examples and company at the right. */
export function SheetBody({ sync, theme, sheet }: { sync: Sync; theme: Signal<Theme>; sheet: Sheet }) {
  const view = sheet.view.value!;
  const look = useSignal("");
  const examples = useComputed(() => (sheet.view.value ? examplesOf(sheet.view.value) : []));
  const shade = sync.trait<"activation" | "effect">("shade").value;
  const most = largest(view);
  const going = sheet.asked.value !== null && sheet.asked.value !== view.feature;
  const canOpen = sync.life.value === "page" || (view.live.go && sync.life.value !== "silent");
  const open = canOpen ? (feature: number) => sheet.open(feature) : undefined;
  const hasEffects = view.examples.effects !== null;
  return (
    <div class={going ? "iv-sheet iv-stale" : "iv-sheet"} aria-busy={going}>
      <div class="iv-sheet-side">
        <Facts view={view} most={most} />
        {view.n_tokens > 0 && (
          <div>
            <h4 class="iv-column-name">activation, log counts</h4>
            <Histogram
              edges={unpack(view.histogram.edges).data}
              counts={unpack(view.histogram.counts).data}
              zero={view.histogram.zero}
              label={`activations of ${view.n_tokens} tokens: ${view.histogram.zero} not active, the largest ${digits(most)}`}
            />
          </div>
        )}
        <Writes view={view} />
        {view.fired_on.texts.length > 0 && (
          <div>
            <h4 class="iv-column-name">tokens it fires on · share</h4>
            <FiredOn on={view.fired_on} />
          </div>
        )}
      </div>
      <div class="iv-sheet-main">
        <OwnText sync={sync} view={view} most={most} theme={theme} />
        <h4 class="iv-column-name iv-examples-head">
          <span>examples by quantile{hasEffects && shade === "effect" ? ", shaded by loss effect" : ""}</span>
          <span>activation</span>
          {hasEffects && <span title="rise of the next token's loss, in nats, when the feature is taken out, at the strongest token">loss if removed</span>}
        </h4>
        {examples.value.length === 0 ? (
          <p class="iv-empty">{nothing(view)}</p>
        ) : (
          <Examples examples={examples.value} stretches={view.stretches} shade={hasEffects ? shade : "activation"} most={most} theme={theme.value} look={look} />
        )}
        <Said look={look} />
        <div class="iv-company">
          <Partners title="fires with · PMI, nat" why="features active at the same tokens, by pointwise mutual information" partners={view.together} onOpen={open} />
          <Partners title="nearest decoder rows · cosine" why="features that write nearly the same" partners={view.nearest} onOpen={open} />
          <Partners title="neurons · correlation" why="neurons whose activation goes with it" partners={view.neurons} />
        </div>
      </div>
    </div>
  );
}

// Alone, so that what is under the pointer draws one line anew and not the page.
function Said({ look }: { look: Signal<string> }) {
  return (
    <div class="iv-said" aria-live="polite">
      {look.value || "\u00a0"}
    </div>
  );
}

/** A count is whole, and is said so. */
function counted(value: number): string {
  return Number.isInteger(value) && Math.abs(value) > 1 ? value.toLocaleString("en-US") : digits(value);
}

function nothing(view: FeatureWire): string {
  if (view.n_tokens === 0) return "no texts were read";
  return view.n_active === 0 ? `never active in the ${view.n_tokens.toLocaleString("en-US")} tokens that were read` : "no examples were kept";
}

function Facts({ view, most }: { view: FeatureWire; most: number }) {
  const label = view.label;
  const median = quantile(view, 0.5);
  const rows: [string, string, string?][] = [
    // Without texts nothing is known, and nothing is no zero.
    ["fires on", percent(view.n_active / view.n_tokens), `${view.n_active} of ${view.n_tokens} tokens`],
    ["largest", view.n_tokens ? digits(most) : "–"],
    ...(Number.isFinite(median) ? [["median above zero", digits(median)] as [string, string]] : []),
    ...(label ? [["label score", label.score === null ? "not scored" : digits(label.score), label.source] as [string, string, string]] : []),
    ...Object.entries(label?.detail ?? {}).map(([name, value]) => [readable(name.replaceAll("_", " ")), value === null ? "–" : counted(value)] as [string, string]),
  ];
  return (
    <div class="iv-facts" role="list">
      {rows.map(([name, value, why]) => (
        <div key={name} title={why} role="listitem">
          <span>{name}</span>
          <span class="iv-num">{value}</span>
        </div>
      ))}
    </div>
  );
}

function Writes({ view }: { view: FeatureWire }) {
  const all = [view.promoted, view.suppressed].flatMap(({ logits }) => Array.from(unpack(logits).data, Math.abs));
  const most = Math.max(1e-9, ...all);
  if (all.length === 0) return null;
  return (
    <>
      <div>
        <h4 class="iv-column-name" title="what one unit of it adds to a word's logit">
          words it promotes · logit a unit
        </h4>
        <Written words={view.promoted} most={most} sign="up" />
      </div>
      <div>
        <h4 class="iv-column-name">words it suppresses</h4>
        <Written words={view.suppressed} most={most} sign="down" />
      </div>
    </>
  );
}

export function SheetFoot({ view }: { view: FeatureWire }) {
  return (
    <>
      <span>{view.n_tokens.toLocaleString("en-US")} tokens read</span>
      {view.n_tokens > 0 && <span>{view.bos ? "BOS read too" : "BOS left out"}</span>}
      {view.label && <span>label: {readable(view.label.source) || "source unknown"}</span>}
      {view.notes.map((note) => (
        <span key={note}>{readable(note)}</span>
      ))}
    </>
  );
}
