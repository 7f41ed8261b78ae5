/**
 * The data path of the front door: bytes as they come, both ways, nothing looked at, bounded by what the slower side
 * takes. When one side ends, what it sent is still delivered and then both are gone.
 */
import type { Socket } from 'node:net';
import type { Upstream } from './upstream.ts';

/** How long the other side may take to finish once one has ended. */
const FAREWELL_MS = 10_000;

/** Resolves, never rejects, when both sides are closed; tells the bytes that went to and came from the export. */
export async function splice(client: Socket, upstream: Upstream, first: Buffer): Promise<{ up: number; down: number }> {
  const { socket } = upstream;
  const { promise, resolve } = Promise.withResolvers<void>();
  let farewell: NodeJS.Timeout | undefined;
  const part = (): void => {
    farewell ??= setTimeout(() => {
      client.destroy();
      socket.destroy();
    }, FAREWELL_MS);
  };
  const closed = (): void => {
    client.destroy();
    socket.destroy();
    if (client.closed && socket.closed) resolve();
  };
  client.on('end', () => {
    part();
    socket.end();
  });
  socket.on('end', () => {
    part();
    client.end();
  });
  client.on('close', closed);
  socket.on('close', closed);
  carryUp(client, socket, first);
  upstream.pumpTo(client);
  if (client.destroyed || socket.destroyed) closed();
  await promise;
  clearTimeout(farewell);
  return { up: socket.bytesWritten, down: socket.bytesRead };
}

/** TLS hands over one record, 16 KiB, at a time: those of one turn of the loop go to the kernel in one call. */
function carryUp(client: Socket, socket: Socket, first: Buffer): void {
  let corked = false;
  const flush = (): void => {
    corked = false;
    socket.uncork();
  };
  const carry = (chunk: Buffer): void => {
    if (!corked) {
      corked = true;
      socket.cork();
      setImmediate(flush);
    }
    if (!socket.write(chunk)) client.pause();
  };
  socket.on('drain', () => client.resume());
  if (first.length > 0) carry(first);
  client.on('data', carry);
  client.resume();
}
