import { digits } from "./numbers";

interface Props {
  label: string;
  /** What the claim is seen against. */
  values: ArrayLike<number>;
  effect: number | null;
  interval: [number, number] | null;
  threshold: number | null;
  unit: string;
}

const WIDTH = 420;
const HEIGHT = 84;
const SIDE = 10;
const BASE = 62;
const TOP = 8;
const BINS = 40;

/** What a claim is compared with, as counts along a line, and where the claim itself stands on it. */
export function Compared({ label, values, effect, interval, threshold, unit }: Props) {
  const numbers = Array.from(values).filter(Number.isFinite);
  const marks = [effect, threshold, ...(interval ?? [])].filter((mark): mark is number => mark !== null && Number.isFinite(mark));
  if (numbers.length === 0 && marks.length === 0) return <p class="iv-note">no plot: there is nothing it was compared with</p>;
  const low = Math.min(...marks, ...extremes(numbers).slice(0, 1));
  const high = Math.max(...marks, ...extremes(numbers).slice(1));
  const width = high - low || Math.abs(high) || 1;
  const x = (value: number) => SIDE + ((value - low) / width) * (WIDTH - 2 * SIDE);
  const counts = new Array<number>(BINS).fill(0);
  for (const value of numbers) counts[Math.min(BINS - 1, Math.floor(((value - low) / width) * BINS))]!++;
  const most = Math.max(1, ...counts);
  const bar = (WIDTH - 2 * SIDE) / BINS;
  const path = counts
    .map((count, i) => (count ? `M${(SIDE + i * bar).toFixed(1)} ${BASE}v${(-(count / most) * (BASE - TOP)).toFixed(1)}h${(bar - 1).toFixed(1)}V${BASE}z` : ""))
    .join("");
  return (
    <svg class="iv-compared" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH} height={HEIGHT} role="img" aria-label={label}>
      <path class="iv-compared-bars" d={path} />
      <path class="iv-axis" d={`M${SIDE} ${BASE}H${WIDTH - SIDE}`} />
      {threshold !== null && <path class="iv-line-soft" d={`M${x(threshold).toFixed(1)} ${TOP}V${BASE}`} />}
      {interval && <path class="iv-line" d={`M${x(interval[0]).toFixed(1)} ${BASE - 4}H${x(interval[1]).toFixed(1)}`} />}
      {effect !== null && <circle class="iv-dot" cx={x(effect)} cy={BASE - 4} r={4} />}
      <text x={SIDE} y={HEIGHT - 6}>
        {digits(low)}
      </text>
      <text x={WIDTH / 2} y={HEIGHT - 6} text-anchor="middle">
        {[numbers.length ? `▮ ${numbers.length.toLocaleString("en-US")} it is compared with` : "", effect === null ? "" : `● this claim ${digits(effect)}`, threshold === null ? "" : `┊ threshold ${digits(threshold)}`, unit].filter(Boolean).join(" · ")}
      </text>
      <text x={WIDTH - SIDE} y={HEIGHT - 6} text-anchor="end">
        {digits(high)}
      </text>
    </svg>
  );
}

function extremes(numbers: number[]): number[] {
  if (numbers.length === 0) return [];
  let [low, high] = [numbers[0]!, numbers[0]!];
  for (const value of numbers) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}
