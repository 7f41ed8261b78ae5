import { PointFile } from '#/api/point.ts';
import { POINT_FILE } from './layout.ts';

/** Beyond this a sidecar is not one of ours. */
export const MAX_POINT_FILE_BYTES = 8 * 1024 * 1024;

/** The restore point that the text of a `point.json` describes, or what is wrong with it. */
export function parsePointFile(text: string): PointFile | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return `its ${POINT_FILE} is not JSON`;
  }
  const result = PointFile.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  return `its ${POINT_FILE} is wrong at ${issue?.path.join('.') || 'the top'}: ${issue?.message}`;
}

export function pointFileText(point: PointFile): string {
  return `${JSON.stringify(PointFile.parse(point), undefined, 2)}\n`;
}
