/**
 * A place for backups. Kinds differ in how the folder comes to be there; what lies in it is the same for all and
 * proved by conformance.ts.
 *
 * Guaranteed: nothing is written or removed unless the folder carries the identity that was registered; a restore point
 * is either wholly there under its final name and on stable storage, or it is unfinished; a finished one is never
 * written again. Not guaranteed: protection from a second hub that uses the same repository, and from whoever may write
 * to the file system.
 *
 * Every method throws REPOSITORY_UNAVAILABLE when the folder is gone, shows another identity or cannot be read or
 * written at all (EIO, ESTALE), and REPOSITORY_FULL when space or quota is used up. Folders are relative to the root,
 * with `/`; anything else than the folder of a restore point is INVALID_REQUEST.
 */
import type { PointFile } from '#/api/point.ts';

export interface Repository extends AsyncDisposable {
  readonly id: string;
  readonly name: string;
  readonly kind: RepositorySettings['kind'];
  /** Absolute path of the folder, as registered. */
  readonly root: string;

  /** Bytes in all and bytes that we may still use. Other users of the file system change both at any time. */
  space(): Promise<{ capacityBytes: number; freeBytes: number }>;

  /** Makes the folder of a new restore point. ALREADY_EXISTS when the point is there, finished or not. */
  beginPoint(point: NewPoint): Promise<UnfinishedPoint>;

  /** Takes up again what `beginPoint` made, in this process or an earlier one. NOT_FOUND when it is gone. */
  openUnfinished(folder: string): Promise<UnfinishedPoint>;

  /** All unfinished folders, whoever made them, oldest first within a VM. */
  listUnfinished(): Promise<{ folder: string; pointId: string }[]>;

  /**
   * Absolute path of a point's folder, which lies inside the repository even when symbolic links are followed.
   * NOT_FOUND when it does not exist.
   */
  pointFolder(folder: string): Promise<string>;

  /**
   * Finished restore points, by VM folder and age. One that cannot be read comes with `problem` in place of `point`
   * and does not end the list. The files of the disks are not looked at.
   */
  listPoints(): AsyncIterable<ListedPoint>;

  /** Removes an unfinished folder and the VM's folder if that is empty then. Harmless when it is gone already. */
  removeUnfinished(folder: string): Promise<void>;

  /**
   * Removes a finished restore point: it becomes unfinished first, so that a crash in between never leaves half of it
   * under its final name. The caller knows that nothing is based on it. Harmless when it is gone already.
   */
  removePoint(folder: string): Promise<void>;

  /** Lets go of what the kind holds, such as a mount; repeating it is harmless. */
  close(): Promise<void>;
}

export interface NewPoint {
  /** As the source says it; any text. */
  vmName: string;
  vmId: string;
  pointId: string;
  startedAt: Temporal.Instant;
}

export interface ListedPoint {
  folder: string;
  point?: PointFile;
  problem?: string;
}

export interface UnfinishedPoint {
  readonly pointId: string;
  /** Relative to the root, with the suffix `.unfinished`. */
  readonly folder: string;
  /** Absolute path of `folder`. */
  readonly absolute: string;
  /** What `folder` is called once committed. */
  readonly finalFolder: string;

  /** Absolute path for the image of a disk; the file may not exist yet. */
  imagePath(diskIndex: number): string;

  /** Writes a small file beside the images, onto stable storage; one that is there already is replaced. */
  writeFile(name: string, data: string | Uint8Array): Promise<void>;

  /**
   * Makes all files durable, takes the write permission from the images and gives the folder its final name, which it
   * returns. Needs a valid `point.json` of this very point and every image it names, else WRONG_STATE. ALREADY_EXISTS
   * when the final name is taken; nothing is overwritten. After a crash the folder is either unfinished, and may be
   * committed again or removed, or finished and complete.
   */
  commit(): Promise<string>;

  /** Like Repository.removeUnfinished. */
  discard(): Promise<void>;
}

/** How to reach a repository. One member per kind. */
export type RepositorySettings = { kind: 'local'; root: string };

export interface RepositoryIdentity {
  id: string;
  name: string;
}
