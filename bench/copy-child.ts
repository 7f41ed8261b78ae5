/**
 * Our copier in a process of its own: `copy-child SOURCE TARGET` copies all of one export into another,
 * `copy-child SOURCE TARGET FILE` only the areas that FILE lists as JSON, into an image over a base.
 */
import { readFile } from 'node:fs/promises';
import { copyDisk } from '#/agent/copy/copier.ts';
import { openNbdSource } from '#/agent/source/nbd.ts';
import { connectNbd } from '#/nbd/client.ts';

const [from, to, list] = process.argv.slice(2);
const { signal } = new AbortController();
const started = performance.now();
await using source = await openNbdSource({ uri: from ?? '', signal });
await using target = await connectNbd({ uri: to ?? '' }, { signal });
const areas =
  list === undefined
    ? [{ offset: 0, length: source.sizeBytes }]
    : (JSON.parse(await readFile(list, 'utf8')) as { offset: number; length: number }[]);
const zeroes = list === undefined ? 'skip' : 'write';
const { writtenBytes, zeroBytes } = await copyDisk({ source, target, areas, zeroes, signal });
const ms = performance.now() - started;
process.stdout.write(
  `${JSON.stringify({ ms, writtenBytes, zeroBytes, peakRssBytes: process.resourceUsage().maxRSS * 1024 })}\n`,
);
