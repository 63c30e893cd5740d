import type { PartnersWire } from "./feature";
import { readable } from "./glyphs";
import { digits } from "./numbers";
import { useRoving } from "./roving";
import { unpack } from "../wire";

interface Props {
  title: string;
  why: string;
  partners: PartnersWire;
  /** Opens a feature; none for what has no page, such as a neuron. */
  onOpen?: (feature: number) => void;
}

/** Features or neurons that go with one, and how strongly; one Tab stop. */
export function Partners({ title, why, partners, onOpen }: Props) {
  const features = unpack(partners.features).data;
  const values = unpack(partners.values).data;
  const counts = unpack(partners.n).data;
  const { box, tab, onKeyDown } = useRoving(Array.from(features, () => 1));
  return (
    <div>
      <h4 class="iv-partners-name" title={why}>
        {title}
      </h4>
      {features.length === 0 ? (
        <p class="iv-note">none kept</p>
      ) : (
        <ul class="iv-partners" ref={box} onKeyDown={onKeyDown} aria-label={title}>
          {Array.from(features, (feature, i) => {
            const inner = (
              <>
                <span class="iv-num">{feature.toLocaleString("en-US")}</span>
                <bdi class="iv-partner-label">{partners.texts[i] ? readable(partners.texts[i]!) : ""}</bdi>
                <span class="iv-num">{digits(values[i]!)}</span>
              </>
            );
            const title = counts[i] ? `both active at ${counts[i]} tokens` : undefined;
            return (
              <li key={feature}>
                {onOpen ? (
                  <button
                    type="button"
                    class="iv-partner"
                    data-at={`${i},0`}
                    data-lm-suppress-shortcuts="true"
                    tabIndex={tab(i, 0)}
                    title={title}
                    onClick={() => onOpen(feature)}
                  >
                    {inner}
                  </button>
                ) : (
                  <span class="iv-partner" title={title}>
                    {inner}
                  </span>
                )}
              </li>
            );
          })}
        </ul>
      )}
    </div>
  );
}
