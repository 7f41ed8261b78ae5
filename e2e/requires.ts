import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { TestContext } from 'node:test';

const PACKAGES: Readonly<Record<string, string>> = {
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  'qemu-storage-daemon': 'qemu-system-common',
  nbdkit: 'nbdkit',
  nbdcopy: 'libnbd-bin',
  nbdinfo: 'libnbd-bin',
  'nbd-server': 'nbd-server',
  openssl: 'openssl',
  mke2fs: 'e2fsprogs',
  debugfs: 'e2fsprogs',
  guestfish: 'libguestfs-tools',
};

/**
 * True when every program is installed. Otherwise the test is skipped with the missing names and their Debian
 * packages, or, in CI where nothing may be missing, failed.
 */
export function requireTools(t: TestContext, ...names: string[]): boolean {
  const missing = names.filter((name) => !installed(name)).map((name) => `${name} (package ${PACKAGES[name] ?? name})`);
  if (missing.length === 0) return true;
  const reason = `not installed: ${missing.join(', ')}`;
  if (process.env['CI']) throw new Error(reason);
  t.skip(reason);
  return false;
}

function installed(name: string): boolean {
  // Tools of an administrator are not on every user's PATH.
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
