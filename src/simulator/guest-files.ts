import { mkdir, symlink, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { SeededRandom } from './random.ts';

const WORDS =
  'request served cache miss user login order paid item queue retry worker started done slow index page'.split(' ');
const EPOCH = new Date('2026-01-01T00:00:00Z');

export interface GuestFilesOptions {
  hostName: string;
  seed: string;
  /** Bytes of all files together, roughly. */
  dataBytes: number;
  /** A system disk has /etc and /boot, a data disk only /srv. */
  system: boolean;
}

/** Writes the same few hundred files for the same seed under `root`; the content of a guest's file system. */
export async function writeGuestFiles(root: string, options: GuestFilesOptions): Promise<void> {
  const random = new SeededRandom(`${options.seed}/files`);
  const write = async (path: string, content: string | Buffer): Promise<void> => {
    const target = join(root, path);
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, content);
    await utimes(target, EPOCH, EPOCH);
  };
  if (options.system) await writeSystemFiles(write, options, random);
  const smallBytes = Math.floor(options.dataBytes * 0.3);
  const largeBytes = options.dataBytes - smallBytes;
  for (let i = 0; i < 200; i++) {
    await write(`srv/app/part-${i % 10}/log-${i}.txt`, logText(random, Math.floor(smallBytes / 200)));
  }
  for (let i = 0; i < 40; i++) {
    await write(`srv/data/${random.hex(2)}/${random.hex(12)}.bin`, random.bytes(Math.floor(largeBytes / 40)));
  }
  await write('srv/data/größe – 数据.txt', 'A name that is not ASCII.\n');
  await write('srv/data/empty', '');
  await mkdir(join(root, 'srv/data/empty-folder'), { recursive: true });
  await symlink('srv/app', join(root, 'app'));
}

async function writeSystemFiles(
  write: (path: string, content: string | Buffer) => Promise<void>,
  options: GuestFilesOptions,
  random: SeededRandom,
): Promise<void> {
  await write('etc/hostname', `${options.hostName}\n`);
  await write(
    'etc/os-release',
    'NAME="Sendense Guest"\nID=sendense-guest\nVERSION_ID=1\nPRETTY_NAME="Sendense Guest 1"\n',
  );
  await write('etc/fstab', 'LABEL=root / ext4 defaults 0 1\n');
  await write('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n');
  await write('boot/vmlinuz', random.bytes(256 * 1024));
  await write('home/web/notes.txt', 'Restore this file to prove that it works.\n');
}

function logText(random: SeededRandom, bytes: number): string {
  const lines: string[] = [];
  for (let size = 0; size < bytes; ) {
    const words = Array.from({ length: 6 }, () => WORDS[random.below(WORDS.length)]);
    const line = `2026-01-01T00:${String(lines.length % 60).padStart(2, '0')}:00Z ${random.hex(8)} ${words.join(' ')}`;
    lines.push(line);
    size += line.length + 1;
  }
  return `${lines.join('\n')}\n`;
}
