import type { ComponentChildren } from "preact";
import { digits, percent } from "./numbers";
import type { Top } from "./lens";
import { Token } from "./token";

interface Props {
  layer: string;
  pos: number;
  word: string;
  isPinned: boolean;
  tops: Top[];
  chosen: number | null;
  entropy: number;
  kl: number;
  onChoose(id: number): void;
  children?: ComponentChildren;
}

/** One cell read closely: the words it puts first, with their probabilities. */
export function Look(props: Props) {
  return (
    <div class="iv-look" aria-label="the cell under the pointer">
      <div class="iv-look-where">
        <span>{props.layer}</span>
        <span>
          token {props.pos} <Token text={props.word} />
        </span>
        {props.isPinned && <span>pinned</span>}
      </div>
      <ol class="iv-look-words">
        {props.tops.map((top) => (
          <li key={top.id}>
            <button
              type="button"
              class="iv-look-word"
              aria-pressed={top.id === props.chosen}
              title={`id ${top.id} · draw its rank over the layers`}
              data-lm-suppress-shortcuts="true"
              onClick={() => props.onChoose(top.id)}
            >
              <Token text={top.text} />
              <span class="iv-look-bar">
                <i style={{ width: `${Math.min(100, top.p * 100)}%` }} />
              </span>
              <span class="iv-num">{percent(top.p)}</span>
            </button>
          </li>
        ))}
      </ol>
      <div class="iv-note">
        entropy {digits(props.entropy)} nat · KL to the last layer {digits(props.kl)} nat
      </div>
      {props.children}
    </div>
  );
}
