import { useSignal } from "@preact/signals";
import { Frame, Verb, type Status } from "../components/frame";
import { readable } from "../components/glyphs";
import { compact, LineChart } from "../components/line_chart";
import { mount, type Scene } from "../components/mount";
import { digits } from "../components/numbers";
import { Token } from "../components/token";
import { unpack, type Packed } from "../wire";
import type { Life, View } from "../sync";

const HEADING = "Training";

interface About {
  model: string;
  specs: { label: string; architecture: string; n_features: number | null; seed: number }[];
  n_steps: number;
  n_tokens: number;
}

interface Progress {
  step: number;
  tokens: number;
  state: "running" | "done" | "stopped" | "failed";
  is_stopping: boolean;
}

interface Curves {
  names: string[];
  values: Packed;
}

interface Feature {
  feature: number;
  examples: { value: number; words: string[]; place: number; tokens_seen: number }[];
}

const CHARTS = [
  { name: "loss", title: "loss", unit: "", isShare: false },
  { name: "l0", title: "active features a token (L0)", unit: "", isShare: false },
  { name: "fvu", title: "variance not explained", unit: "", isShare: true },
  { name: "dead", title: "dead features", unit: "", isShare: true },
];

function TrainingMonitor({ sync }: Scene) {
  const about = sync.trait<About | null>("about").value;
  const progress = sync.trait<Progress | null>("progress").value;
  const curves = sync.trait<Curves[]>("curves").value;
  const examples = sync.trait<Feature[][]>("examples").value;
  const which = sync.trait<number>("which");
  const status = sync.trait<Status>("status").value;
  const trouble = useSignal("");
  const life = sync.life.value;
  if (!about || !progress) {
    return (
      <Frame title={HEADING} what="" life={life} status={status}>
        <p class="iv-empty">{life === "live" ? "no training has begun: start one in the next cell, such as iv.train_dictionary(…)" : "no training had begun"}</p>
      </Frame>
    );
  }
  const chosen = Math.min(which.value, Math.max(0, curves.length - 1));
  const stop = () => {
    trouble.value = "";
    sync.ask("stop").catch((error: Error) => (trouble.value = error.message));
  };
  const isRunning = progress.state === "running" && life === "live";
  return (
    <Frame
      title={HEADING}
      what={`${readable(about.model)} · ${about.specs.map((spec) => readable(spec.label)).join(", ")}`}
      life={life}
      status={status}
      verbs={
        <>
          {about.specs.length > 1 && (
            <label>
              dictionary{" "}
              <select data-lm-suppress-shortcuts="true" class="iv-field" value={String(chosen)} onChange={(event) => sync.put("which", Number(event.currentTarget.value))}>
                {about.specs.map((spec, i) => (
                  <option key={i} value={String(i)}>
                    {`${i}: ${readable(spec.label)}, seed ${spec.seed}`}
                  </option>
                ))}
              </select>
            </label>
          )}
          <Verb
            label="stop"
            disabled={!isRunning || progress.is_stopping}
            why={isRunning ? "end behind this step; what is trained by then is kept" : "no training runs"}
            onAct={stop}
          />
        </>
      }
      foot={
        <>
          <span>{readable(about.specs[chosen]?.architecture ?? "")}</span>
          {about.specs[chosen]?.n_features != null && <span>{about.specs[chosen]!.n_features!.toLocaleString("en-US")} features</span>}
          <span>judged on held-out text: not run</span>
        </>
      }
    >
      {trouble.value && (
        <p class="iv-note iv-note-bad" role="alert">
          {trouble.value}
        </p>
      )}
      <div class="iv-train-now">
        <progress max={about.n_steps} value={progress.step} aria-label="steps done" />
        <span role="status">
          {stateWord(progress, life)} · step {progress.step.toLocaleString("en-US")} of {about.n_steps.toLocaleString("en-US")} ·{" "}
          {compact(progress.tokens)} of {compact(about.n_tokens)} tokens
        </span>
      </div>
      <Charts curves={curves[chosen]} />
      <Examples features={examples[chosen] ?? []} />
    </Frame>
  );
}

/** A training that was under way when the page or notebook was saved is not called running. */
function stateWord(progress: Progress, life: Life): string {
  if (progress.state !== "running") return progress.state;
  if (life === "page" || life === "silent") return "was running when this was saved";
  return progress.is_stopping ? "stopping behind this step" : "running";
}

function Charts({ curves }: { curves: Curves | undefined }) {
  if (!curves) return <p class="iv-note">no point of the curves yet</p>;
  const { data, shape } = unpack(curves.values);
  const points = shape[1] ?? 0;
  if (points === 0) return <p class="iv-note">no point of the curves yet</p>;
  const row = (name: string) => {
    const at = curves.names.indexOf(name);
    return at < 0 ? new Float32Array(0) : data.subarray(at * points, (at + 1) * points);
  };
  return (
    <div class="iv-charts">
      {CHARTS.map((chart) => (
        <LineChart key={chart.name} title={chart.title} unit={chart.unit} isShare={chart.isShare} x={row("tokens")} y={row(chart.name)} />
      ))}
    </div>
  );
}

function Examples({ features }: { features: Feature[] }) {
  const seen = features.filter((one) => one.examples.length > 0);
  if (seen.length === 0) return <p class="iv-note">no examples yet: they come with text, not with bare activations</p>;
  return (
    <div class="iv-train-examples">
      {seen.map((one) => (
        <section key={one.feature} aria-label={`feature ${one.feature}`}>
          <h4 class="iv-train-feature">feature {one.feature.toLocaleString("en-US")}</h4>
          {one.examples.slice(0, 3).map((example, i) => (
            <div class="iv-train-example" key={i}>
              <span class="iv-train-words">
                {example.words.map((word, at) => (
                  <span key={at} class={at === example.place ? "iv-train-at" : ""}>
                    <Token text={word} reading="prose" />
                  </span>
                ))}
              </span>
              <span class="iv-num" title={`seen after ${compact(example.tokens_seen)} tokens`}>
                {digits(example.value)}
              </span>
            </div>
          ))}
        </section>
      ))}
    </div>
  );
}

export default {
  render: (view: View) => mount(view, "training", HEADING, TrainingMonitor),
};
