import { Compared } from "../components/compared";
import { Frame, Verb, type Status } from "../components/frame";
import { readable } from "../components/glyphs";
import { mount, type Scene } from "../components/mount";
import { unpack, type Packed } from "../wire";
import type { View } from "../sync";

const HEADING = "Evidence";

interface ControlWire {
  control: string;
  figure: number | null;
  said: string;
  threshold: number | null;
  flagged: string;
  verdict: "holds" | "flagged" | "shown" | "not run" | "does not apply";
  n: number | null;
  interval: [number, number] | null;
  compared_with: Packed;
  n_compared: number;
  effect: number | null;
  unit: string;
  why: string;
  is_ours: boolean;
}

interface EvidenceWire {
  claim: string;
  about: string;
  controls: ControlWire[];
  counts: Record<string, number>;
}

const SIGNS: Record<ControlWire["verdict"], string> = {
  holds: "✓",
  flagged: "⚑",
  shown: "·",
  "not run": "○",
  "does not apply": "–",
};

function EvidenceCard({ sync }: Scene) {
  const wire = sync.trait<EvidenceWire>("evidence").value;
  const shown = sync.trait<number[]>("shown");
  const status = sync.trait<Status>("status").value;
  const controls = wire.controls ?? [];
  const plotted = controls.map((_, i) => i).filter((i) => hasPlot(controls[i]!));
  const toggle = (i: number) =>
    sync.put("shown", shown.value.includes(i) ? shown.value.filter((one) => one !== i) : [...shown.value, i].sort((a, b) => a - b));
  return (
    <Frame
      title={HEADING}
      what={wire.about ? readable(wire.about) : ""}
      life={sync.life.value}
      status={status}
      verbs={
        plotted.length > 0 && (
          <Verb
            label={plotted.every((i) => shown.value.includes(i)) ? "close all plots" : "open all plots"}
            onAct={() => sync.put("shown", plotted.every((i) => shown.value.includes(i)) ? [] : plotted)}
          />
        )
      }
      foot={<Foot wire={wire} />}
    >
      {wire.claim && <p class="iv-claim">{readable(wire.claim)}</p>}
      {controls.length === 0 ? (
        <p class="iv-empty">no control was named: nothing is known of how far to believe it</p>
      ) : (
        <div class="iv-controls-box">
          <table class="iv-controls" aria-label="controls">
            <thead>
              <tr>
                {["control", "figure", "flagged", "verdict", "n"].map((head) => (
                  <th key={head} scope="col">
                    {head}
                  </th>
                ))}
              </tr>
            </thead>
            {controls.map((control, i) => (
              <Row key={i} control={control} isOpen={shown.value.includes(i)} onToggle={() => toggle(i)} />
            ))}
          </table>
        </div>
      )}
    </Frame>
  );
}

function hasPlot(control: ControlWire): boolean {
  return control.n_compared > 0 || control.interval !== null;
}

function Row({ control, isOpen, onToggle }: { control: ControlWire; isOpen: boolean; onToggle(): void }) {
  const opens = hasPlot(control);
  return (
    <tbody class={`iv-control iv-control-${control.verdict.replaceAll(" ", "-")}`}>
      <tr>
        <th scope="row">
          {opens ? (
            <button
              type="button"
              class="iv-verb iv-open"
              aria-expanded={isOpen}
              title={isOpen ? "close its plot" : "open its plot"}
              data-lm-suppress-shortcuts="true"
              onClick={onToggle}
            >
              <span aria-hidden="true">{isOpen ? "▾ " : "▸ "}</span>
              {readable(control.control)}
            </button>
          ) : (
            readable(control.control)
          )}
          {control.why && <div class="iv-why">{readable(control.why)}</div>}
        </th>
        <td class="iv-num">{readable(control.said)}</td>
        <td class="iv-num" title={control.is_ours ? "a threshold of ours: no paper gave one" : undefined}>
          {control.flagged}
        </td>
        <td class="iv-verdict">
          <span aria-hidden="true">{SIGNS[control.verdict]} </span>
          {control.verdict}
        </td>
        <td class="iv-num">{control.n === null ? "–" : control.n.toLocaleString("en-US")}</td>
      </tr>
      {opens && isOpen && (
        <tr>
          <td colSpan={5}>
            <Compared
              label={`${readable(control.control)}: ${control.n_compared} values, and this claim at ${readable(control.said)}`}
              values={unpack(control.compared_with).data}
              effect={control.effect}
              interval={control.interval}
              threshold={control.n_compared > 0 && control.effect !== control.figure ? null : control.threshold}
              unit={control.unit && readable(control.unit)}
            />
          </td>
        </tr>
      )}
    </tbody>
  );
}

function Foot({ wire }: { wire: EvidenceWire }) {
  const counts = Object.entries(wire.counts ?? {});
  return (
    <>
      <span>{counts.length ? counts.map(([verdict, count]) => `${count} ${verdict}`).join(", ") : "no controls"}</span>
      {(wire.controls ?? []).some((one) => one.is_ours) && <span>(ours): a threshold that no paper gave</span>}
    </>
  );
}

export default {
  render: (view: View) => mount(view, "evidence", HEADING, EvidenceCard),
};
