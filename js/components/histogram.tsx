import { digits } from "./numbers";

interface Props {
  edges: ArrayLike<number>;
  counts: ArrayLike<number>;
  zero: number;
  label: string;
}

const WIDTH = 230;
const HEIGHT = 56;
const BASE = 42;
const ZERO = 8;
const LEFT = ZERO + 8;

/** Counts on a logarithmic scale; the bucket of zeros stands apart at the left. */
export function Histogram({ edges, counts, zero, label }: Props) {
  const most = Math.max(zero, ...Array.from(counts), 1);
  const height = (count: number) => (count > 0 ? 2 + (Math.log(count) / Math.log(Math.max(most, 2))) * (BASE - 4) : 0);
  const width = (WIDTH - LEFT) / Math.max(1, counts.length);
  const first = edges[0] ?? 0;
  const last = edges[edges.length - 1] ?? 0;
  const many = (count: number) => `${Math.round(count).toLocaleString("en-US")} tokens`;
  return (
    <svg class="iv-hist" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH} height={HEIGHT} role="img" aria-label={label}>
      <path class="iv-axis" d={`M0 ${BASE + 0.5}H${WIDTH}`} />
      <g>
        <title>{`not active: ${many(zero)}`}</title>
        <rect class="iv-hist-hit" x={0} y={0} width={ZERO} height={BASE} />
        <rect class="iv-hist-zero" x={0} y={BASE - height(zero)} width={ZERO} height={height(zero)} />
      </g>
      {Array.from(counts, (count, i) => (
        <g key={i}>
          <title>{`${digits(edges[i]!)} to ${digits(edges[i + 1]!)}: ${many(count)}`}</title>
          <rect class="iv-hist-hit" x={LEFT + i * width} y={0} width={width} height={BASE} />
          <rect class="iv-hist-bar" x={LEFT + i * width} y={BASE - height(count)} width={Math.max(0.5, width - (width > 3 ? 1 : 0))} height={height(count)} />
        </g>
      ))}
      <text x={0} y={HEIGHT - 3}>
        0
      </text>
      {counts.length > 0 && (
        <>
          <text x={LEFT} y={HEIGHT - 3}>
            {digits(first)}
          </text>
          <text x={WIDTH} y={HEIGHT - 3} text-anchor="end">
            {digits(last)}
          </text>
        </>
      )}
    </svg>
  );
}
