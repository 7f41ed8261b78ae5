/** A simulator in a folder of its own, and a client that sends exactly the bytes a test wants to send. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { request } from 'node:https';
import type { IncomingHttpHeaders } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { assert } from '#/lib/errors.ts';
import { waitFor } from '#/lib/retry.ts';
import { control } from './client.ts';
import { startSimulator } from './main.ts';
import type { Simulator } from './main.ts';
import { parseXml } from './xml.ts';
import type { XmlElement } from './xml.ts';

export interface HttpAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

export interface SoapAnswer {
  status: number;
  /** Type of the fault, or undefined. */
  fault: string | undefined;
  faultDetail: XmlElement | undefined;
  /** The `returnval` elements. */
  values: XmlElement[];
  setCookie: string | undefined;
}

export class Lab implements AsyncDisposable {
  simulator: Simulator;
  readonly dir: string;
  readonly #scenario: object;
  cookie: string | undefined;

  private constructor(simulator: Simulator, dir: string, scenario: object) {
    this.simulator = simulator;
    this.dir = dir;
    this.#scenario = scenario;
  }

  static async start(scenario: object): Promise<Lab> {
    const dir = await mkdtemp(join(tmpdir(), 'sendense-simulator-'));
    return new Lab(await startSimulator({ dir, scenario }), dir, scenario);
  }

  async restart(): Promise<void> {
    await this.simulator.close();
    this.simulator = await startSimulator({ dir: this.dir, scenario: this.#scenario });
    this.cookie = undefined;
  }

  async http(path: string, options: { method?: string; headers?: object; body?: string } = {}): Promise<HttpAnswer> {
    const { promise, resolve, reject } = Promise.withResolvers<HttpAnswer>();
    const cert = await readFile(join(this.dir, 'cert.pem'), 'utf8');
    const call = request(
      `${this.simulator.url}${path}`,
      { method: options.method ?? 'GET', ca: cert, headers: { ...options.headers } },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }),
        );
      },
    );
    call.on('error', reject);
    call.end(options.body);
    return promise;
  }

  /** One call with `content` behind `_this`. */
  async soap(method: string, on: [type: string, id: string], content = ''): Promise<SoapAnswer> {
    const [type, id] = on;
    return this.post(`<${method} xmlns="urn:vim25"><_this type="${type}">${id}</_this>${content}</${method}>`);
  }

  async post(call: string): Promise<SoapAnswer> {
    return this.postRaw(
      '<?xml version="1.0"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" ' +
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema">' +
        `<soapenv:Body>${call}</soapenv:Body></soapenv:Envelope>`,
    );
  }

  async postRaw(body: string): Promise<SoapAnswer> {
    const headers = {
      'content-type': 'text/xml; charset="utf-8"',
      ...(this.cookie !== undefined && { cookie: this.cookie }),
    };
    const answer = await this.http('/sdk', { method: 'POST', headers, body });
    const [content] = parseXml(answer.body.toString('utf8')).children[0]?.children ?? [];
    assert(content, 'an answer has a body');
    const detail = content.children.find((child) => child.name === 'detail')?.children[0];
    return {
      status: answer.status,
      fault: detail?.xsiType,
      faultDetail: detail,
      values: content.children.filter((child) => child.name === 'returnval'),
      setCookie: answer.headers['set-cookie']?.[0],
    };
  }

  async login(password = this.simulator.password): Promise<SoapAnswer> {
    const names = `<userName>${this.simulator.username}</userName><password>${password}</password>`;
    const answer = await this.soap('Login', ['SessionManager', 'SessionManager'], names);
    this.cookie = answer.setCookie?.split(';')[0] ?? this.cookie;
    return answer;
  }

  /** Calls a `_Task` method and waits for its end; the fault is that of the call or of the task. */
  async task(
    method: string,
    on: [type: string, id: string],
    content = '',
  ): Promise<{ fault?: string; result: string }> {
    const started = await this.soap(method, on, content);
    if (started.fault !== undefined) return { fault: started.fault, result: '' };
    const id = started.values[0]?.text ?? '';
    const info = await waitFor(
      method,
      async () => {
        const found = await this.property('Task', id, 'info');
        return ['success', 'error'].includes(childOf(found, 'state')?.text ?? '') ? found : undefined;
      },
      { timeoutMs: 10_000, everyMs: 5 },
    );
    const fault = childOf(childOf(info, 'error'), 'fault')?.xsiType;
    return { ...(fault !== undefined && { fault }), result: childOf(info, 'result')?.text ?? '' };
  }

  /** The `val` of one property; undefined when it is unset. */
  async property(type: string, id: string, path: string): Promise<XmlElement | undefined> {
    const answer = await this.retrieve(type, id, path);
    assert(answer.fault === undefined, `${type} ${id} ${path} can be read: ${answer.fault}`);
    return childOf(childOf(childOf(answer.values[0], 'objects'), 'propSet'), 'val');
  }

  async retrieve(type: string, id: string, path: string): Promise<SoapAnswer> {
    const spec =
      `<specSet><propSet><type>${type}</type><pathSet>${path}</pathSet></propSet>` +
      `<objectSet><obj type="${type}">${id}</obj></objectSet></specSet><options/>`;
    return this.soap('RetrievePropertiesEx', ['PropertyCollector', 'propertyCollector'], spec);
  }

  async control(method: string, path: string, body?: unknown): Promise<Record<string, unknown>> {
    const cert = await readFile(join(this.dir, 'cert.pem'), 'utf8');
    const { url, username, password } = this.simulator;
    return (await control({ url, username, password, cert }, method, path, body)) as Record<string, unknown>;
  }

  async moref(name: string): Promise<string> {
    const { vms } = (await this.control('GET', 'status')) as { vms: { name: string; moref: string }[] };
    const vm = vms.find((entry) => entry.name === name);
    assert(vm, `there is a VM ${name}`);
    return vm.moref;
  }

  /** A snapshot without memory; its moref. */
  async snapshot(vm: string, name = 's'): Promise<string> {
    const content = `<name>${name}</name><memory>false</memory>`;
    const { fault, result } = await this.task('CreateSnapshotEx_Task', ['VirtualMachine', vm], content);
    assert(fault === undefined, `snapshot ${name} is made: ${fault}`);
    return result;
  }

  /** What the configuration of a VM or snapshot says of its disks. */
  async disks(type: 'VirtualMachine' | 'VirtualMachineSnapshot', id: string): Promise<Record<string, string>[]> {
    const devices = await this.property(type, id, 'config.hardware.device');
    const disks = (devices?.children ?? []).filter((device) => device.xsiType === 'VirtualDisk');
    return disks.map((disk) => ({ ...texts(disk), ...texts(childOf(disk, 'backing')) }));
  }

  async enableTracking(vm: string): Promise<void> {
    const spec = '<spec><changeTrackingEnabled>true</changeTrackingEnabled></spec>';
    const { fault } = await this.task('ReconfigVM_Task', ['VirtualMachine', vm], spec);
    assert(fault === undefined, `tracking is switched on: ${fault}`);
  }

  async changedAreas(
    vm: string,
    query: { snapshot?: string; key?: number; offset?: number; changeId: string },
  ): Promise<{ fault: string | undefined; property: string | undefined; length: number; areas: [number, number][] }> {
    const snapshot =
      query.snapshot === undefined ? '' : `<snapshot type="VirtualMachineSnapshot">${query.snapshot}</snapshot>`;
    const content =
      `${snapshot}<deviceKey>${query.key ?? 2000}</deviceKey>` +
      `<startOffset>${query.offset ?? 0}</startOffset><changeId>${query.changeId}</changeId>`;
    const answer = await this.soap('QueryChangedDiskAreas', ['VirtualMachine', vm], content);
    const areas = answer.values[0]?.children.filter((child) => child.name === 'changedArea') ?? [];
    return {
      fault: answer.fault,
      property: childOf(answer.faultDetail, 'invalidProperty')?.text,
      length: Number(childOf(answer.values[0], 'length')?.text),
      areas: areas.map((area) => [Number(childOf(area, 'start')?.text), Number(childOf(area, 'length')?.text)]),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.simulator.close();
    await rm(this.dir, { recursive: true, force: true });
  }
}

export function childOf(element: XmlElement | undefined, name: string): XmlElement | undefined {
  return element?.children.find((child) => child.name === name);
}

function texts(element: XmlElement | undefined): Record<string, string> {
  return Object.fromEntries((element?.children ?? []).map((child) => [child.name, child.text]));
}
