// Numbers as a person reads them: three significant digits and a real minus sign.

const MINUS = "−";

export function digits(value: number, signed = false): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  let text: string;
  if (size === 0) text = "0";
  // From here on three digits are a whole number with a place more.
  else if (size >= 999.5) text = Math.round(size).toLocaleString("en-US");
  else if (size < 0.001) text = size.toExponential(1).replace("-", MINUS);
  else text = size.toPrecision(3);
  const sign = value < 0 ? MINUS : signed && size > 0 ? "+" : "";
  return sign + text;
}

export function percent(probability: number): string {
  const value = probability * 100;
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0 %";
  if (value < 0.01) return "<0.01 %";
  return `${value >= 10 ? value.toFixed(1) : value.toPrecision(3).slice(0, 4)} %`;
}

export function steps(value: number): string {
  const sign = value < 0 ? MINUS : value > 0 ? "+" : "";
  return `${sign}${Math.abs(value).toFixed(1)}`;
}
