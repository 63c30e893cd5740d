import { useSignal } from "@preact/signals";
import { Choice, Frame, type Status } from "../components/frame";
import { visible } from "../components/glyphs";
import { mount, type Scene } from "../components/mount";
import { digits } from "../components/numbers";
import { fullShade, Shaded } from "../components/shaded";
import { unpack, type Packed } from "../wire";
import type { View } from "../sync";

const HEADING = "Tokens";

function bytes(word: string): string {
  return Array.from(new TextEncoder().encode(word), (byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ");
}

function TokenStrip({ sync, theme }: Scene) {
  const words = sync.trait<string[]>("words").value;
  const labels = sync.trait<string[]>("labels").value;
  const ids = sync.trait<number[]>("ids").value;
  const about = sync.trait<{ unit: string; what: string; starts: number[] }>("about").value;
  const series = sync.trait<number>("series");
  const status = sync.trait<Status>("status").value;
  const packed = sync.trait<Packed>("values").value;
  const look = useSignal<number | null>(null);

  const all = unpack(packed);
  const chosen = Math.min(series.value, labels.length - 1);
  const values = all.data.subarray(chosen * words.length, (chosen + 1) * words.length);
  const at = look.value;
  const said =
    at === null || at >= words.length
      ? "\u00a0"
      : [
          visible(words[at]!),
          `${digits(values[at]!, true)} ${about.unit}`,
          ...(ids.length ? [`id ${ids[at]}`] : []),
          `bytes ${bytes(words[at]!)}`,
        ].join(" · ");
  return (
    <Frame
      title={HEADING}
      what={about.what}
      life={sync.life.value}
      status={status}
      verbs={
        labels.length > 1 && (
          <Choice
            label="values"
            value={String(chosen)}
            options={labels.map((label, i) => ({ value: String(i), label }))}
            onPick={(value) => sync.put("series", Number(value))}
          />
        )
      }
      foot={
        <>
          <span>{words.length} tokens</span>
          <span>
            orange above zero, purple below; the fullest shade is {digits(fullShade(values))} {about.unit}
          </span>
        </>
      }
    >
      {words.length === 0 ? (
        <p class="iv-empty">no tokens</p>
      ) : (
        <>
          <Shaded
            label={`${labels[chosen]} by token`}
            words={words}
            values={values}
            most={fullShade(values)}
            theme={theme.value}
            unit={about.unit}
            starts={about.starts}
            onLook={(i) => (look.value = i)}
          />
          <div class="iv-said" aria-live="polite">
            {said}
          </div>
        </>
      )}
    </Frame>
  );
}

export default {
  render: (view: View) => mount(view, "strip", HEADING, TokenStrip),
};
