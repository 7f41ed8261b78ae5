/** Names of exports: no two ever collide, and each tells a person what it is. */

const MAX_LENGTH = 63;

/**
 * `<vm>-disk<N>-<id of the disk's backup>`: the id makes it unique for all time, the rest is for reading.
 * At most 63 characters of `[a-z0-9._-]`, the first a letter or digit.
 */
export function exportName(vmName: string, diskIndex: number, id: string): string {
  const suffix = `-disk${diskIndex}-${id}`;
  const slug = vmName
    .toLowerCase()
    .normalize('NFKD')
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-+|-+$/g, '')
    .slice(0, Math.max(0, Math.min(24, MAX_LENGTH - suffix.length)))
    .replace(/-+$/, '');
  return `${slug === '' ? 'vm' : slug}${suffix}`;
}
