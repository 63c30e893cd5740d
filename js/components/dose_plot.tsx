import { digits } from "./numbers";

interface Props {
  strengths: ArrayLike<number>;
  effect: ArrayLike<number>;
  cost: ArrayLike<number>;
  randomEffect: ArrayLike<number>;
  randomCost: ArrayLike<number>;
  here: number;
  name(strength: number): string;
}

const WIDTH = 224;
const HEIGHT = 104;
const LEFT = 40;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 22;

/** Effect against cost over the strengths; the dashed line is a random direction of the same length. */
export function DosePlot(props: Props) {
  const { strengths, effect, cost, randomEffect, randomCost } = props;
  const effects = [...Array.from(effect), ...Array.from(randomEffect), 0];
  const low = Math.min(...effects);
  const high = Math.max(...effects, low + 1e-6);
  const far = Math.max(...Array.from(cost), ...Array.from(randomCost), 1e-6);
  const x = (value: number) => LEFT + (value / far) * (WIDTH - LEFT - RIGHT);
  const y = (value: number) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const path = (xs: ArrayLike<number>, ys: ArrayLike<number>) =>
    Array.from(xs, (value, i) => `${i ? "L" : "M"}${x(value).toFixed(1)} ${y(ys[i]!).toFixed(1)}`).join("");
  const here = interpolate(strengths, props.here);
  const hereEffect = here(effect);
  const hereCost = here(cost);
  return (
    <div>
      <svg class="iv-dose" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH} height={HEIGHT} role="img" aria-label="effect against cost">
        <path class="iv-axis" d={`M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}M${LEFT} ${y(0).toFixed(1)}H${WIDTH - RIGHT}`} />
        <path class="iv-line-soft" d={path(randomCost, randomEffect)} />
        <path class="iv-line" d={path(cost, effect)} />
        {Array.from(strengths, (strength, i) => (
          <circle key={i} class="iv-dot-open" cx={x(cost[i]!)} cy={y(effect[i]!)} r={2.2}>
            <title>{`${props.name(strength)}: effect ${digits(effect[i]!, true)}, KL ${digits(cost[i]!)} nat a token`}</title>
          </circle>
        ))}
        <circle class="iv-dot" cx={x(hereCost)} cy={y(hereEffect)} r={4} />
        <text x={LEFT - 4} y={y(high) + 4} text-anchor="end">
          {digits(high, true)}
        </text>
        {low < 0 && (
          <text x={LEFT - 4} y={y(low) + 2} text-anchor="end">
            {digits(low, true)}
          </text>
        )}
        <text x={LEFT} y={HEIGHT - 6}>
          0
        </text>
        <text x={WIDTH - RIGHT} y={HEIGHT - 6} text-anchor="end">
          KL {digits(far)} nat a token
        </text>
      </svg>
      <div class="iv-note">
        now {props.name(props.here)}: effect {digits(hereEffect, true)}, KL {digits(hereCost)} nat a token
        <br />
        dashed: a random direction of the same length
      </div>
    </div>
  );
}

/** Reads a curve at a strength, straight between the measured ones. */
export function interpolate(strengths: ArrayLike<number>, at: number): (values: ArrayLike<number>) => number {
  const last = strengths.length - 1;
  if (at <= strengths[0]!) return (values) => values[0]!;
  if (at >= strengths[last]!) return (values) => values[last]!;
  let i = 0;
  while (strengths[i + 1]! < at) i++;
  const share = (at - strengths[i]!) / (strengths[i + 1]! - strengths[i]!);
  return (values) => values[i]! + share * (values[i + 1]! - values[i]!);
}
