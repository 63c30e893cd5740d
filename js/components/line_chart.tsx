import { digits } from "./numbers";

interface Props {
  title: string;
  unit: string;
  x: ArrayLike<number>;
  y: ArrayLike<number>;
  /** Shows a share as per cent. */
  isShare?: boolean;
}

const WIDTH = 232;
const HEIGHT = 96;
const LEFT = 44;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 18;

/** One curve over tokens, its last value in print. */
export function LineChart({ title, unit, x, y, isShare = false }: Props) {
  const points: [number, number][] = [];
  for (let i = 0; i < y.length; i++) if (Number.isFinite(y[i]!) && Number.isFinite(x[i]!)) points.push([x[i]!, y[i]!]);
  const said = (value: number) => (isShare ? `${digits(value * 100)} %` : digits(value));
  const last = points[points.length - 1];
  const low = Math.min(...points.map(([, value]) => value), 0);
  const high = Math.max(...points.map(([, value]) => value), low + 1e-9);
  const left = points[0]?.[0] ?? 0;
  const right = Math.max(last?.[0] ?? 1, left + 1);
  const px = (value: number) => LEFT + ((value - left) / (right - left)) * (WIDTH - LEFT - RIGHT);
  const py = (value: number) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const path = points.map(([a, b], i) => `${i ? "L" : "M"}${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join("");
  return (
    <figure class="iv-chart">
      <figcaption>
        <span>{title}</span>
        <span class="iv-num">{last ? `${said(last[1])}${unit ? ` ${unit}` : ""}` : "–"}</span>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH} height={HEIGHT} role="img" aria-label={`${title}, ${points.length} points, last ${last ? said(last[1]) : "none"}`}>
        {[low, high].map((value, i) => (
          <g key={i}>
            <path class="iv-axis" d={`M${LEFT} ${py(value).toFixed(1)}H${WIDTH - RIGHT}`} />
            <text x={LEFT - 5} y={py(value) + 3.5} text-anchor="end">
              {points.length ? said(value) : ""}
            </text>
          </g>
        ))}
        <path class="iv-line" d={path} />
        {last && <circle class="iv-dot" cx={px(last[0])} cy={py(last[1])} r={2.5} />}
        <text x={LEFT} y={HEIGHT - 4}>
          {points.length ? compact(left) : ""}
        </text>
        <text x={WIDTH - RIGHT} y={HEIGHT - 4} text-anchor="end">
          {points.length ? `${compact(right)} tokens` : ""}
        </text>
      </svg>
    </figure>
  );
}

/** 1,200,000 as 1.2M. */
export function compact(count: number): string {
  if (count >= 1e6) return `${(count / 1e6).toFixed(count >= 1e7 ? 0 : 1)}M`;
  if (count >= 1e3) return `${(count / 1e3).toFixed(count >= 1e4 ? 0 : 1)}k`;
  return String(Math.round(count));
}
