/** Copies an image with all that lies below it into one new file. */
import path from 'node:path';
import { SendenseError } from '#/lib/errors.ts';
import { ended, start } from '#/lib/run.ts';
import type { ImageFormat, ImageRef } from './img.ts';

export interface Conversion {
  source: ImageRef;
  /** Made new; an existing file is overwritten, so the caller decides about that first. */
  target: { path: string; format: ImageFormat };
  /** Called with the share done, 0 to 1, whenever qemu-img says so. */
  onProgress?: (share: number) => void;
  signal?: AbortSignal;
}

/** REPOSITORY_FULL when the target's file system is full, else TOOL_FAILED; the partial target is left to the caller. */
export async function convertImage(conversion: Conversion): Promise<void> {
  const { source, target, signal } = conversion;
  signal?.throwIfAborted();
  const formats = ['-f', source.format, '-O', target.format];
  const args = ['convert', '-p', '-U', ...formats, '--', path.resolve(source.path), path.resolve(target.path)];
  const child = start('qemu-img', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const onAbort = (): void => void child.kill('SIGKILL');
  signal?.addEventListener('abort', onAbort, { once: true });
  let words = '';
  child.stderr?.on('data', (chunk: Buffer) => (words = (words + chunk.toString('utf8')).slice(-2000)));
  child.stdout?.on('data', (chunk: Buffer) => {
    const percent = chunk
      .toString('utf8')
      .match(/\((\d+(?:\.\d+)?)\/100%\)/g)
      ?.at(-1);
    if (percent) conversion.onProgress?.(Number.parseFloat(percent.slice(1)) / 100);
  });
  try {
    const { code, signal: killedBy } = await ended('qemu-img', child);
    signal?.throwIfAborted();
    if (code === 0) return;
    const full = /No space left on device|Disk quota exceeded/.test(words);
    throw new SendenseError(full ? 'REPOSITORY_FULL' : 'TOOL_FAILED', `qemu-img convert failed: ${words.trim()}`, {
      details: { program: 'qemu-img', exitCode: code ?? -1, signal: killedBy ?? '' },
    });
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
}
