import type { Extent, KnownExtent } from '#/lib/extents.ts';
import { allocation } from '#/nbd/allocation.ts';
import { connectNbd } from '#/nbd/client.ts';
import type { NbdClient } from '#/nbd/client.ts';
import { BASE_ALLOCATION } from '#/nbd/constants.ts';
import { readFailed } from './read-failed.ts';
import type { DiskSource } from './source.ts';

const BLOCK_BYTES = 64 * 1024;

export interface NbdSourceOptions {
  uri: string;
  /** Wanted connections; a server that allows only one gets one. */
  connections?: number;
  /** Reads in flight per connection. */
  requestsPerConnection?: number;
  signal: AbortSignal;
}

/** A disk behind an NBD URI, opened for reading. Throws what connectNbd throws. */
export async function openNbdSource(options: NbdSourceOptions): Promise<DiskSource> {
  const { uri, connections = 1, requestsPerConnection = 8, signal } = options;
  const client = await connectNbd({ uri }, { signal, connections, metaContexts: [BASE_ALLOCATION] });
  return new NbdSource(client, requestsPerConnection);
}

class NbdSource implements DiskSource {
  readonly transport = 'nbd';
  readonly sizeBytes: number;
  readonly parallel: number;
  readonly maxReadBytes: number;
  readonly #client: NbdClient;

  constructor(client: NbdClient, requestsPerConnection: number) {
    this.#client = client;
    this.sizeBytes = client.sizeBytes;
    this.parallel = client.connections * requestsPerConnection;
    this.maxReadBytes = Math.max(BLOCK_BYTES, client.blockSize.maximum - (client.blockSize.maximum % BLOCK_BYTES));
  }

  async read(offset: number, target: Buffer, signal: AbortSignal): Promise<void> {
    try {
      await this.#client.read(offset, target, { signal });
    } catch (cause) {
      signal.throwIfAborted();
      throw readFailed(cause, offset, target.length);
    }
  }

  async *allocation(range: Extent, signal: AbortSignal): AsyncGenerator<KnownExtent> {
    try {
      yield* allocation(this.#client, range, signal);
    } catch (cause) {
      signal.throwIfAborted();
      throw readFailed(cause, range.offset, range.length);
    }
  }

  /** Reads still running are ended rather than waited for: nobody wants their bytes any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.destroy();
  }
}
