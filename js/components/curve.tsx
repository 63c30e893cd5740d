import { layerName, shortName } from "./grid";

interface Props {
  /** Rank at each layer, 0 being the top; null where only "beyond `beyond`" is known. */
  ranks: (number | null)[];
  beyond: number;
  layers: string[];
  at: number | null;
  label: string;
}

const WIDTH = 224;
const HEIGHT = 92;
const LEFT = 34;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 18;

/** A word's rank over the layers, the top word highest, on a logarithmic scale. */
export function RankCurve({ ranks, beyond, layers, at, label }: Props) {
  const known = ranks.map((rank) => rank ?? beyond);
  const depth = Math.max(2, Math.ceil(Math.log10(Math.max(...known, 9) + 1)));
  const x = (i: number) => LEFT + (i / Math.max(1, ranks.length - 1)) * (WIDTH - LEFT - RIGHT);
  const y = (rank: number) => TOP + (Math.log10(rank + 1) / depth) * (HEIGHT - TOP - BOTTOM);
  const line = known.map((rank, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(rank).toFixed(1)}`).join("");
  const ticks = Array.from({ length: depth + 1 }, (_, i) => 10 ** i);
  return (
    <svg class="iv-curve" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH} height={HEIGHT} role="img" aria-label={label}>
      {ticks.map((tick) => (
        <g key={tick}>
          <path class="iv-axis" d={`M${LEFT} ${y(tick - 1).toFixed(1)}H${WIDTH - RIGHT}`} />
          <text x={LEFT - 5} y={y(tick - 1) + 3.5} text-anchor="end">
            {tick >= 1000 ? `${tick / 1000}k` : tick}
          </text>
        </g>
      ))}
      <path class="iv-line" d={line} />
      {ranks.map((rank, i) => (
        <circle key={i} class={rank === null ? "iv-dot-open" : "iv-dot"} cx={x(i)} cy={y(known[i]!)} r={i === at ? 4 : 2}>
          <title>{`${layerName(layers[i]!)}: ${rank === null ? `beyond rank ${beyond}` : `rank ${rank + 1}`}`}</title>
        </circle>
      ))}
      <text x={LEFT} y={HEIGHT - 4}>
        {shortName(layers[0] ?? "")}
      </text>
      <text x={(LEFT + WIDTH - RIGHT) / 2} y={HEIGHT - 4} text-anchor="middle">
        layer
      </text>
      <text x={WIDTH - RIGHT} y={HEIGHT - 4} text-anchor="end">
        {shortName(layers[layers.length - 1] ?? "")}
      </text>
    </svg>
  );
}
