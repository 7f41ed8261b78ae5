/** What tests and the status command want to know about the traffic. */
export class Counters {
  readonly requests = new Map<string, number>();
  /** Bytes sent of each datastore file, by `[datastore] path`. */
  readonly folderBytes = new Map<string, number>();
  openStreams = 0;

  request(method: string): void {
    this.requests.set(method, (this.requests.get(method) ?? 0) + 1);
  }

  served(file: string, bytes: number): void {
    this.folderBytes.set(file, (this.folderBytes.get(file) ?? 0) + bytes);
  }

  reset(): void {
    this.requests.clear();
    this.folderBytes.clear();
  }
}
