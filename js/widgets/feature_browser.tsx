import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { FeatureAt } from "../bus";
import { NO_KERNEL, SheetBody, SheetVerbs, sheetTitle, useSheet } from "../components/feature_sheet";
import { FeatureTable } from "../components/feature_table";
import { Frame, Verb, type Status } from "../components/frame";
import { readable } from "../components/glyphs";
import { mount, type Scene } from "../components/mount";
import { compares, findSaved, PAGE, Rows, sameQuery, searched, type BrowserAbout, type FirstRows, type Query } from "../components/rows";
import { useSelection } from "../components/selection";
import { arrived } from "../wire";
import type { View } from "../sync";

const HEADING = "Features";

function FeatureBrowser({ sync, theme, bus, root, ended }: Scene) {
  const about = sync.trait<BrowserAbout>("about").value;
  const first = sync.trait<FirstRows>("first");
  const query = sync.trait<Query>("query");
  const status = sync.trait<Status>("status").value;
  const opened = sync.trait<number>("opened").value;
  const sheet = useSheet(sync, bus);
  const version = useSignal(0);
  const sight = useRef<[number, number]>([0, 0]);
  const isAsking = useRef(false);
  const page = sync.life.value === "page";
  const { selected, put } = useSelection(sync, bus, about, ended);
  // The rows that are known outlive a kernel that falls silent; what is asked of it then is looked for among those that were saved.
  const isSaved = useComputed(() => sync.life.value === "page" || (sync.life.value === "silent" && !sameQuery(first.value.query, query.value)));
  const rows = useComputed(() => (isSaved.value ? findSaved(first.value, about.columns, query.value) : new Rows(first.value.query, first.value)));
  const isDue = !isSaved.value && !sameQuery(first.value.query, query.value);

  useEffect(() => {
    if (opened > 0) root.querySelector(".iv-browser-page")?.scrollIntoView?.({ block: "nearest" });
  }, [opened]);

  // One page of rows at a time, and always of what is in sight now: scrolling fast asks for no page that has gone by.
  const fill = () => {
    const known = rows.value;
    const wanted = known.missing(...sight.current);
    if (isAsking.current || wanted === null || isSaved.value) return;
    isAsking.current = true;
    sync.ask("rows", { query: known.query, start: wanted * PAGE, count: PAGE }).then(
      ({ ok, buffers }) => {
        known.learn({ ...ok, features: arrived(ok.features, buffers), values: arrived(ok.values, buffers) });
        version.value++;
        isAsking.current = false;
        fill();
      },
      (error: Error) => {
        isAsking.current = false;
        sheet.told.value = { state: "error", message: error.message };
      },
    );
  };
  const change = (more: Partial<Query>) => {
    sheet.told.value = { state: "ready", message: "" };
    sync.put("query", { ...query.value, ...more });
  };
  const sort = (column: string) => {
    const now = query.value;
    // Numbers of interest are large ones; names and numbers of features begin at the front.
    const descending = now.sort === column ? !now.descending : column !== "feature" && column !== "label";
    change({ sort: column, descending });
  };
  const toggle = (feature: number) => {
    const next = new Set(selected.value);
    if (!next.delete(feature)) next.add(feature);
    put(next);
  };
  const open = (feature: number) => {
    sheet.told.value = { state: "ready", message: "" };
    if (page) {
      const at: FeatureAt = { model: about.model, dictionary: about.dictionary, site: about.site, feature };
      if (!bus?.tell("feature", at)) sheet.told.value = { state: "error", message: `the page of feature ${feature} is not on this page` };
      return;
    }
    sync.ask("follow", { feature }).then(
      ({ ok }) => {
        if (ok.here) sheet.asked.value = feature;
      },
      (error: Error) => (sheet.told.value = { state: "error", message: error.message }),
    );
  };
  const selectFound = () => {
    if (isSaved.value) put(Array.from({ length: rows.value.total }, (_, i) => rows.value.at(i)!.feature));
    else sync.ask("select", { query: query.value }).catch((error: Error) => (sheet.told.value = { state: "error", message: error.message }));
  };
  const found = rows.value.total;
  const view = sheet.view.value;
  const shown: Status = sheet.told.value.message ? sheet.told.value : status;
  return (
    <Frame
      title={HEADING}
      what={[about.model, about.site, about.about].filter(Boolean).map(readable).join(" · ")}
      life={sync.life.value}
      status={shown}
      verbs={
        <>
          <Verb label={`select these ${found.toLocaleString("en-US")}`} disabled={found === 0} onAct={selectFound} />
          <Verb label="select none" disabled={selected.value.size === 0} onAct={() => put([])} />
        </>
      }
      foot={
        <>
          <span>
            {isDue ? "searching…" : `${found.toLocaleString("en-US")} of ${about.n_features.toLocaleString("en-US")} features`}
            {!isDue && query.value.sort === "fit" && ", the best fit first"}
          </span>
          <span>{selected.value.size.toLocaleString("en-US")} selected</span>
          <span>{about.n_labels.toLocaleString("en-US")} labelled</span>
          {about.n_tokens !== null && <span>{about.n_tokens.toLocaleString("en-US")} tokens read</span>}
          {isSaved.value && first.value.total > (first.value.features.shape[0] ?? 0) && <span>the first {first.value.features.shape[0]} were saved</span>}
        </>
      }
    >
      <Filters about={about} query={query.value} onChange={change} disabled={page} />
      {found === 0 ? (
        <p class="iv-empty">{isDue ? "searching…" : "no feature is like that: take a filter away"}</p>
      ) : (
        <div class={isDue ? "iv-stale" : ""}>
          <FeatureTable
            rows={rows.value}
            version={version.value}
            columns={about.columns}
            query={rows.value.query}
            selected={selected.value}
            shown={view?.feature ?? null}
            hasLabels={about.n_labels > 0 || about.has_hints}
            onSort={sort}
            onOpen={open}
            onToggle={toggle}
            onLike={about.can_compare && !page ? (feature) => change({ feature, sort: "similarity", descending: true }) : undefined}
            onSight={(from, to) => {
              sight.current = [from, to];
              fill();
            }}
          />
        </div>
      )}
      {view ? (
        <div class="iv-browser-page">
          <div class="iv-head">
            <h3>{sheetTitle(view)}</h3>
            <div class="iv-verbs">
              <SheetVerbs sync={sync} sheet={sheet} />
            </div>
          </div>
          <SheetBody sync={sync} theme={theme} sheet={sheet} />
        </div>
      ) : (
        sheet.asked.value !== null && <p class="iv-note">opening feature {sheet.asked.value}…</p>
      )}
    </Frame>
  );
}

interface FilterProps {
  about: BrowserAbout;
  query: Query;
  disabled: boolean;
  onChange(more: Partial<Query>): void;
}

function Filters({ about, query, disabled, onChange }: FilterProps) {
  const stop = (event: KeyboardEvent) => event.stopPropagation();
  const chosen = query.feature >= 0 ? `f${query.feature}` : String(query.direction);
  return (
    <div class="iv-filters">
      <input
        class="iv-field iv-filter-text"
        type="search"
        aria-label="search labels and words, or a feature's number"
        placeholder={about.n_labels || about.has_hints ? "label, word or number" : "a feature's number"}
        value={query.text}
        maxLength={200}
        onInput={(event) => onChange(searched(query, event.currentTarget.value, about.columns))}
        onKeyDown={stop}
      />
      {about.columns.includes("density") && (
        <span class="iv-filter" role="group" aria-label="density, in percent">
          fires on
          <Percent label="least density, percent" value={query.low} onPick={(low) => onChange({ low })} /> to
          <Percent label="largest density, percent" value={query.high} onPick={(high) => onChange({ high })} /> %
        </span>
      )}
      {about.can_compare && (about.directions.length > 0 || query.feature >= 0) && (
        <span class="iv-filter">
          like{" "}
          <select
            data-lm-suppress-shortcuts="true"
            class="iv-field"
            aria-label="compare features with"
            disabled={disabled}
            title={disabled ? NO_KERNEL : undefined}
            value={chosen}
            onChange={(event) => {
              const value = event.currentTarget.value;
              const direction = value.startsWith("f") ? -1 : Number(value);
              const isNone = direction < 0;
              onChange({ direction, feature: -1, cosine: null, ...(isNone ? { sort: "feature", descending: false } : { sort: "similarity", descending: true }) });
            }}
          >
            <option value="-1">nothing</option>
            {query.feature >= 0 && <option value={`f${query.feature}`}>feature {query.feature}</option>}
            {about.directions.map((name, i) => (
              <option key={i} value={String(i)}>
                {readable(name)}
              </option>
            ))}
          </select>
          {compares(query) && (
            <>
              {" "}
              at least <Bound label="least cosine" value={query.cosine} low={-1} onPick={(cosine) => onChange({ cosine })} />
            </>
          )}
        </span>
      )}
    </div>
  );
}

function Percent({ label, value, onPick }: { label: string; value: number | null; onPick(value: number | null): void }) {
  return <Bound label={label} value={value === null ? null : Number((value * 100).toPrecision(6))} low={0} high={100} onPick={(picked) => onPick(picked === null ? null : picked / 100)} />;
}

function Bound(props: { label: string; value: number | null; low: number; high?: number; onPick(value: number | null): void }) {
  const { value, low, high = 1 } = props;
  return (
    <input
      class="iv-field iv-bound"
      type="text"
      inputMode="decimal"
      aria-label={props.label}
      placeholder="any"
      value={value === null ? "" : String(value)}
      onChange={(event) => {
        const said = event.currentTarget.value.trim();
        const number = Number(said);
        if (said === "") props.onPick(null);
        else if (Number.isFinite(number)) props.onPick(Math.min(high, Math.max(low, number)));
        else event.currentTarget.value = value === null ? "" : String(value);
      }}
      onKeyDown={(event) => event.stopPropagation()}
    />
  );
}

export default {
  render: (view: View) => mount(view, "browser", HEADING, FeatureBrowser),
};
