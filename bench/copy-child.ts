/** Our copier in a process of its own: `copy-child SOURCE TARGET` copies all of one export into another. */
import { copyDisk } from '#/agent/copy/copier.ts';
import { openNbdSource } from '#/agent/source/nbd.ts';
import { connectNbd } from '#/nbd/client.ts';

const [from, to] = process.argv.slice(2);
const { signal } = new AbortController();
await using source = await openNbdSource({ uri: from ?? '', signal });
await using target = await connectNbd({ uri: to ?? '' }, { signal });
const started = performance.now();
const areas = [{ offset: 0, length: source.sizeBytes }];
await copyDisk({ source, target, areas, zeroes: 'skip', signal });
const ms = performance.now() - started;
process.stdout.write(`${JSON.stringify({ ms, peakRssBytes: process.resourceUsage().maxRSS * 1024 })}\n`);
