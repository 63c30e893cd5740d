// Many points on a canvas: where each is, which lies nearest a place, which lie inside a line drawn by hand.

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

export type Spot = [number, number];

const CELL = 12;

/** The box around all points, a little larger. */
export function boxOf(points: ArrayLike<number>, only?: Iterable<number>): Box {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  const see = (i: number) => {
    const [x, y] = [points[2 * i]!, points[2 * i + 1]!];
    if (!Number.isFinite(x) || !Number.isFinite(y)) return;
    left = Math.min(left, x);
    right = Math.max(right, x);
    low = Math.min(low, y);
    high = Math.max(high, y);
  };
  if (only) for (const i of only) see(i);
  else for (let i = 0; i < points.length / 2; i++) see(i);
  if (left > right) return { x: -1, y: -1, width: 2, height: 2 };
  const spareX = Math.max((right - left) * 0.04, 1e-6);
  const spareY = Math.max((high - low) * 0.04, 1e-6);
  return { x: left - spareX, y: low - spareY, width: right - left + 2 * spareX, height: high - low + 2 * spareY };
}

/** Points on a canvas of some size, both axes at one scale, so that distances can be compared. */
export class Plot {
  readonly at: Float32Array;
  private readonly cells = new Map<number, number[]>();
  private readonly columns: number;

  constructor(
    points: ArrayLike<number>,
    readonly box: Box,
    readonly width: number,
    readonly height: number,
  ) {
    const scale = Math.min(width / box.width, height / box.height);
    const [dx, dy] = [(width - box.width * scale) / 2, (height - box.height * scale) / 2];
    this.columns = Math.ceil(width / CELL) + 1;
    this.at = new Float32Array(points.length);
    for (let i = 0; i < points.length / 2; i++) {
      const x = (points[2 * i]! - box.x) * scale + dx;
      const y = height - ((points[2 * i + 1]! - box.y) * scale + dy);
      this.at[2 * i] = x;
      this.at[2 * i + 1] = y;
      if (!(x >= 0 && x <= width && y >= 0 && y <= height)) continue;
      const key = this.key(x, y);
      const known = this.cells.get(key);
      if (known) known.push(i);
      else this.cells.set(key, [i]);
    }
  }

  /** The point nearest a place, within so many pixels. */
  nearest(x: number, y: number, within = 2 * CELL): number | null {
    let best: number | null = null;
    let least = within * within;
    const reach = Math.ceil(within / CELL) * CELL;
    for (let cy = y - reach; cy <= y + reach; cy += CELL) {
      for (let cx = x - reach; cx <= x + reach; cx += CELL) {
        if (cx < -CELL || cy < -CELL) continue;
        for (const i of this.cells.get(this.key(Math.max(0, cx), Math.max(0, cy))) ?? []) {
          const square = (this.at[2 * i]! - x) ** 2 + (this.at[2 * i + 1]! - y) ** 2;
          if (square < least) [best, least] = [i, square];
        }
      }
    }
    return best;
  }

  /** The point that comes next in a direction: near, and not far off to the side. */
  towards(from: number, dx: number, dy: number): number | null {
    const [x, y] = [this.at[2 * from]!, this.at[2 * from + 1]!];
    let best: number | null = null;
    let least = Infinity;
    for (const inside of this.cells.values()) {
      for (const i of inside) {
        const along = (this.at[2 * i]! - x) * dx + (this.at[2 * i + 1]! - y) * dy;
        if (i === from || along <= 0.5) continue;
        const aside = Math.abs((this.at[2 * i]! - x) * dy) + Math.abs((this.at[2 * i + 1]! - y) * dx);
        const cost = along + 2 * aside;
        if (cost < least) [best, least] = [i, cost];
      }
    }
    return best;
  }

  /** Points inside a closed line. */
  inside(line: Spot[]): number[] {
    const found: number[] = [];
    for (const inside of this.cells.values()) for (const i of inside) if (isInside(this.at[2 * i]!, this.at[2 * i + 1]!, line)) found.push(i);
    return found;
  }

  private key(x: number, y: number): number {
    return Math.floor(y / CELL) * this.columns + Math.floor(x / CELL);
  }
}

function isInside(x: number, y: number, line: Spot[]): boolean {
  let inside = false;
  for (let i = 0, j = line.length - 1; i < line.length; j = i++) {
    const [xi, yi] = line[i]!;
    const [xj, yj] = line[j]!;
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

/** Share of the known values that are smaller, 0 to 1: an even use of the shades whatever the spread. NaN where nothing is known. */
export function ranks(values: ArrayLike<number>): Float32Array {
  const known = Float32Array.from(Array.from(values).filter(Number.isFinite)).sort();
  const last = Math.max(1, known.length - 1);
  const found = new Map<number, number>();
  for (let i = 0; i < known.length; i++) if (!found.has(known[i]!)) found.set(known[i]!, i / last);
  return Float32Array.from(values, (value) => (Number.isFinite(value) ? found.get(value)! : NaN));
}
