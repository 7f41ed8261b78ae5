/**
 * The methods and data objects of the vSphere API that we send, with their fields in the order the schema demands:
 * servers refuse any other. Base-class fields come first. What is not listed here cannot be sent.
 */

interface Method {
  readonly fields: readonly string[];
  /** Sending it twice does no harm, so it is repeated when the answer got lost. */
  readonly repeatable: boolean;
}

export const METHODS = {
  RetrieveServiceContent: repeatable(),
  Login: repeatable('userName', 'password', 'locale'),
  Logout: repeatable(),
  CurrentTime: repeatable(),
  CreateContainerView: repeatable('container', 'type', 'recursive'),
  DestroyView: once(),
  RetrievePropertiesEx: repeatable('specSet', 'options'),
  ContinueRetrievePropertiesEx: once('token'),
  QueryChangedDiskAreas: repeatable('snapshot', 'deviceKey', 'startOffset', 'changeId'),
  ReconfigVM_Task: once('spec'),
  CreateSnapshot_Task: once('name', 'description', 'memory', 'quiesce'),
  CreateSnapshotEx_Task: once('name', 'description', 'memory', 'quiesceSpec'),
  RemoveSnapshot_Task: once('removeChildren', 'consolidate'),
  ConsolidateVMDisks_Task: once(),
} as const satisfies Record<string, Method>;

export type MethodName = keyof typeof METHODS;

interface DataType {
  readonly fields: readonly string[];
  /** The schema only names a base class at the places where it is used, so the element says what it is. */
  readonly polymorphic: boolean;
}

export const DATA_TYPES = {
  PropertyFilterSpec: { fields: ['propSet', 'objectSet', 'reportMissingObjectsInResults'], polymorphic: false },
  PropertySpec: { fields: ['type', 'all', 'pathSet'], polymorphic: false },
  ObjectSpec: { fields: ['obj', 'skip', 'selectSet'], polymorphic: false },
  TraversalSpec: { fields: ['name', 'type', 'path', 'skip', 'selectSet'], polymorphic: true },
  RetrieveOptions: { fields: ['maxObjects'], polymorphic: false },
  VirtualMachineConfigSpec: { fields: ['changeVersion', 'changeTrackingEnabled'], polymorphic: false },
  VirtualMachineGuestQuiesceSpec: { fields: ['timeout'], polymorphic: true },
} as const satisfies Record<string, DataType>;

export type DataTypeName = keyof typeof DATA_TYPES;

function repeatable(...fields: string[]): Method {
  return { fields, repeatable: true };
}

function once(...fields: string[]): Method {
  return { fields, repeatable: false };
}
