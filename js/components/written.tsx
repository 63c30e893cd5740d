import type { FeatureWire, WordsWire } from "./feature";
import { digits, percent } from "./numbers";
import { Token } from "./token";
import { unpack } from "../wire";

/** Words whose logit a feature moves, with a bar each. */
export function Written({ words, most, sign }: { words: WordsWire; most: number; sign: "up" | "down" }) {
  const logits = unpack(words.logits).data;
  const ids = unpack(words.ids).data;
  return (
    <ol class="iv-written-words">
      {words.texts.map((text, i) => (
        <li key={i} title={`id ${ids[i]}`}>
          <Token text={text} />
          <span class="iv-written-bar">
            <i class={`iv-bar-${sign}`} style={{ width: `${Math.min(100, (Math.abs(logits[i]!) / most) * 100)}%` }} />
          </span>
          <span class="iv-num">{digits(logits[i]!, true)}</span>
        </li>
      ))}
    </ol>
  );
}

/** Tokens that a feature is most often active on, and their share of its activations. */
export function FiredOn({ on }: { on: FeatureWire["fired_on"] }) {
  const shares = unpack(on.shares).data;
  const ids = unpack(on.ids).data;
  const means = unpack(on.means).data;
  const n = unpack(on.n).data;
  const of = unpack(on.of).data;
  return (
    <ol class="iv-written-words">
      {on.texts.map((text, i) => (
        <li key={i} title={[`id ${ids[i]}`, of[i] ? `${n[i]} of its ${of[i]} times` : `${n[i]} times`, `mean activation ${digits(means[i]!)}`].join(", ")}>
          <Token text={text} />
          <span class="iv-written-bar">
            <i class="iv-bar-share" style={{ width: `${shares[i]! * 100}%` }} />
          </span>
          <span class="iv-num">{percent(shares[i]!)}</span>
        </li>
      ))}
    </ol>
  );
}
