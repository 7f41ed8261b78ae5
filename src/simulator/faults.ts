import { Data, Ref } from './values.ts';
import type { Value } from './values.ts';

/** A fault of the vSphere API: thrown by methods and tasks, answered with HTTP 500 and a typed detail. */
export class VimFault extends Error {
  readonly data: Data;

  constructor(type: string, message: string, fields: Record<string, Value | undefined> = {}) {
    super(message);
    this.data = new Data(type, fields);
  }

  /** The form in which a task or a missing property carries it. */
  localized(): Data {
    return new Data('LocalizedMethodFault', { fault: this.data, localizedMessage: this.message });
  }
}

export function invalidRequest(message: string): VimFault {
  return new VimFault('InvalidRequest', message);
}

export function invalidArgument(property: string): VimFault {
  return new VimFault('InvalidArgument', `A specified parameter was not correct: ${property}`, {
    invalidProperty: property,
  });
}

export function objectNotFound(ref: Ref): VimFault {
  const message = `The object '${ref.type}:${ref.id}' has already been deleted or has not been completely created`;
  return new VimFault('ManagedObjectNotFound', message, { obj: ref });
}

export function notAuthenticated(object: Ref): VimFault {
  return new VimFault('NotAuthenticated', 'The session is not authenticated.', { object, privilegeId: 'System.View' });
}

export function fileFault(file: string): VimFault {
  return new VimFault('FileFault', `Error caused by file ${file}`, { file });
}

export function notSupported(what: string): VimFault {
  return new VimFault('NotSupported', `The operation is not supported on the object: ${what}`);
}
