export interface Ratio {
  ours: number;
  other: number;
  /** Above 1: ours is faster. */
  ratio: number;
  runs: number;
}

/** Medians of two series that were measured in turns. */
export function ratio(ours: readonly number[], other: readonly number[]): Ratio {
  const [a, b] = [median(ours), median(other)];
  return { ours: Math.round(a), other: Math.round(b), ratio: Math.round((a / b) * 1000) / 1000, runs: ours.length };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((x, y) => x - y);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}
