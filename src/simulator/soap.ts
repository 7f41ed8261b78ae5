/** `/sdk`: SOAP 1.1 in, SOAP 1.1 out. As strict as a real server about names, order and types of elements. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
import { sleep } from '#/lib/clock.ts';
import { readArguments, readRef } from './arguments.ts';
import { fileFault, invalidRequest, notAuthenticated, objectNotFound, VimFault } from './faults.ts';
import { propertiesOf, VERSION } from './inventory.ts';
import type { Call, Method } from './method.ts';
import { returnval } from './method.ts';
import { EVENT_METHODS } from './methods-event.ts';
import { PROPERTY_METHODS } from './methods-property.ts';
import { SESSION_METHODS } from './methods-session.ts';
import { VM_METHODS } from './methods-vm.ts';
import { missingForExpired } from './property-collector.ts';
import type { Session } from './sessions.ts';
import { takeFault } from './settings.ts';
import { UPDATE_METHODS } from './updates.ts';
import { Data, renderElement } from './values.ts';
import type { Ref } from './values.ts';
import { isKindOf } from './vim-types.ts';
import type { World } from './world.ts';
import { escapeXml, parseXml, XmlError } from './xml.ts';
import type { XmlElement } from './xml.ts';

const METHODS: Readonly<Record<string, Method>> = {
  ...SESSION_METHODS,
  ...PROPERTY_METHODS,
  ...UPDATE_METHODS,
  ...VM_METHODS,
  ...EVENT_METHODS,
};
const ENVELOPE = 'http://schemas.xmlsoap.org/soap/envelope/';
const MAX_BODY_BYTES = 8 * 1024 * 1024;

export const VERSIONS_XML =
  '<?xml version="1.0" encoding="UTF-8" ?><namespaces version="1.0"><namespace><name>urn:vim25</name>' +
  `<version>${VERSION}</version><priorVersions><version>8.0.0.0</version><version>7.0.0.0</version>` +
  '<version>6.7</version><version>6.5</version><version>6.0</version></priorVersions></namespace></namespaces>';

interface Answer {
  status: number;
  body: string;
  cookie?: string;
}

export async function answerSoap(world: World, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const text = await readBody(request);
  if (world.settings.latencyMs > 0) await sleep(world.settings.latencyMs, world.signal);
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  const answer = await run(world, text, request, AbortSignal.any([world.signal, gone.signal]));
  const zipped = answer.body.length > 1400 && /\bgzip\b/.test(String(request.headers['accept-encoding']));
  response.writeHead(answer.status, {
    'content-type': 'text/xml; charset=utf-8',
    ...(zipped && { 'content-encoding': 'gzip' }),
    ...(answer.cookie !== undefined && { 'set-cookie': answer.cookie }),
  });
  response.end(zipped ? gzipSync(answer.body, { level: 1 }) : answer.body);
}

export async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) throw new XmlError('the request is too long');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

async function run(world: World, text: string, request: IncomingMessage, signal: AbortSignal): Promise<Answer> {
  let cookie: string | undefined;
  try {
    const element = bodyOf(text);
    const method = Object.hasOwn(METHODS, element.name) ? METHODS[element.name] : undefined;
    if (!method) throw new VimFault('MethodNotFound', `There is no method ${element.name}`, { method: element.name });
    world.counters.request(element.name);
    const [first, ...rest] = element.children;
    if (first?.name !== '_this') throw invalidRequest(`Method ${element.name} begins with _this`);
    const self = readRef(first);
    if (!isKindOf(self.type, method.on)) throw invalidRequest(`${element.name} is not a method of ${self.type}`);
    const args = readArguments({ ...element, children: rest }, element.name, method.fields);
    const session = world.sessions.find(request.headers.cookie, world.settings.sessionTimeoutMs);
    if (!session && !method.anonymous) return ok(element.name, expired(element.name, self, args.objects.bind(args)));
    if (session) session.calls++;
    injectFault(world, element.name);
    checkObject(world, session, self);
    const call: Call = {
      world,
      session,
      self,
      args,
      cookie: request.headers.cookie,
      userAgent: request.headers['user-agent'] ?? '',
      signal,
      setSession: (made: Session) => {
        cookie = `vmware_soap_session="${made.token}"; Path=/; HttpOnly; Secure;`;
      },
    };
    const content = await method.run(call);
    return { ...ok(element.name, content), ...(cookie !== undefined && { cookie }) };
  } catch (error) {
    if (error instanceof VimFault) return faultAnswer(error);
    if (error instanceof XmlError) return faultAnswer(invalidRequest(error.message));
    if (!signal.aborted) world.log.error({ err: error }, 'a method failed');
    return faultAnswer(new VimFault('SystemError', 'A general system error occurred'));
  }
}

function bodyOf(text: string): XmlElement {
  const root = parseXml(text);
  const body = root.children.find((child) => child.name === 'Body' && child.namespace === ENVELOPE);
  const [element, ...more] = body?.children ?? [];
  if (root.name !== 'Envelope' || !element || more.length > 0)
    throw invalidRequest('not a SOAP envelope with one call');
  if (element.namespace !== 'urn:vim25') throw invalidRequest(`unknown namespace ${element.namespace}`);
  return element;
}

/** Property reads of an ended session are answered, with every property missing; everything else is a fault. */
function expired(name: string, self: Ref, objects: (field: string) => Parameters<typeof missingForExpired>[0]): string {
  if (name !== 'RetrieveProperties' && name !== 'RetrievePropertiesEx') throw notAuthenticated(self);
  const contents = [...missingForExpired(objects('specSet').slice())];
  if (name === 'RetrieveProperties') return contents.map((one) => returnval('ObjectContent', one)).join('');
  return returnval('RetrieveResult', new Data('RetrieveResult', { objects: contents }));
}

function injectFault(world: World, method: string): void {
  const rule = takeFault(world.settings, method, false);
  if (!rule) return;
  if (rule.fault === 'FileFault') throw fileFault('/vmfs/volumes/datastore1/injected.vmdk');
  throw new VimFault(rule.fault, `Injected fault ${rule.fault}`);
}

function checkObject(world: World, session: Session | undefined, self: Ref): void {
  if (!propertiesOf(world, session, self)) throw objectNotFound(self);
}

function ok(method: string, content: string): Answer {
  return { status: 200, body: envelope(`<${method}Response xmlns="urn:vim25">${content}</${method}Response>`) };
}

function faultAnswer(fault: VimFault): Answer {
  const type = fault.data.type;
  const detail = renderElement(`${type}Fault`, 'MethodFault', fault.data).replace(
    `<${type}Fault`,
    `<${type}Fault xmlns="urn:vim25"`,
  );
  const words = escapeXml(fault.message);
  return {
    status: 500,
    body: envelope(
      `<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>${words}</faultstring><detail>${detail}</detail></soapenv:Fault>`,
    ),
  };
}

function envelope(body: string): string {
  return (
    `<?xml version="1.0" encoding="UTF-8"?>\n<soapenv:Envelope xmlns:soapenv="${ENVELOPE}" ` +
    'xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">' +
    `<soapenv:Body>${body}</soapenv:Body></soapenv:Envelope>`
  );
}
