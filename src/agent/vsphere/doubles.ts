/**
 * Stand-ins for tests, for what an honest server would never do: a session whose answers are given, an HTTPS server
 * that does as it is told, and one with just enough of vCenter in it to log in.
 */
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { gzipSync } from 'node:zlib';
import type { MethodName } from './schema.ts';
import type { Call, Caller } from './session.ts';
import { moRef } from './soap.ts';
import type { Fields, MoRef } from './soap.ts';
import { parseXml } from './xml.ts';

export interface Request {
  target: MoRef;
  method: MethodName;
  args: Fields;
}

/** A session that answers with what `answer` returns: the inner XML of the response element. */
export function scriptedCaller(answer: (request: Request) => string): Caller & { requests: Request[] } {
  const requests: Request[] = [];
  const call: Call = async (target, method, args, signal) => {
    signal?.throwIfAborted();
    requests.push({ target, method, args });
    return parseXml(
      `<${method}Response xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">${answer({ target, method, args })}</${method}Response>`,
    );
  };
  return {
    requests,
    call,
    renewing: (work) => work(call),
    version: '8.0.3.0',
    retryDelayMs: 1,
    content: {
      about: { fullName: '', apiType: 'VirtualCenter', apiVersion: '8.0.3.0', build: '1', instanceUuid: 'u' },
      rootFolder: moRef('Folder', 'group-d1'),
      propertyCollector: moRef('PropertyCollector', 'propertyCollector'),
      sessionManager: moRef('SessionManager', 'SessionManager'),
      viewManager: moRef('ViewManager', 'ViewManager'),
    },
  };
}

export interface ScriptedServer extends AsyncDisposable {
  address: string;
  sha256: string;
  sha1: string;
  /** Connections that got past the TCP handshake so far. */
  readonly connections: number;
}

export async function scriptedServer(listener: RequestListener): Promise<ScriptedServer> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const made = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'CN=scripted',
    keys,
    signingAlgorithm: algorithm,
  });
  const cert = made.toString('pem');
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  const key = `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n`;
  const server = createServer({ cert, key }, listener);
  const sockets = new Set<Socket>();
  let connections = 0;
  server.on('connection', (socket: Socket) => {
    connections += 1;
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const parsed = new X509Certificate(cert);
  return {
    address: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    sha256: parsed.fingerprint256,
    sha1: parsed.fingerprint,
    get connections() {
      return connections;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

const CONTENT =
  '<returnval><rootFolder type="Folder">group-d1</rootFolder><propertyCollector type="PropertyCollector">pc</propertyCollector>' +
  '<viewManager type="ViewManager">ViewManager</viewManager><about><fullName>Scripted</fullName><build>1</build>' +
  '<apiType>VirtualCenter</apiType><apiVersion>8.0.3.0</apiVersion><instanceUuid>u-1</instanceUuid></about>' +
  '<sessionManager type="SessionManager">SessionManager</sessionManager></returnval>';

/** A server with just enough of vCenter in it; `vcenter.sessions` are the cookies it accepts. */
export class TinyVcenter {
  readonly requests: { method: string; cookie: string | undefined; soapAction: string | undefined; body: string }[] =
    [];
  readonly sessions = new Set<string>();
  password = 'secret';
  /** Answers a method in its own way; false lets the usual answer follow. */
  override: (method: string, response: ServerResponse, cookie?: string, range?: string) => boolean = () => false;
  /** How an expired session shows. */
  expiry: 'fault' | 'missing' = 'fault';
  #logins = 0;

  readonly listener: RequestListener = (request, response) => void this.#serve(request, response);

  count(method: string): number {
    return this.requests.filter((entry) => entry.method === method).length;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = '';
    for await (const chunk of request) body += String(chunk);
    const method = /<soapenv:Body><(\w+)/.exec(body)?.[1] ?? `${request.method} ${request.url}`;
    const { cookie } = request.headers;
    this.requests.push({ method, cookie, soapAction: request.headers['soapaction'] as string, body });
    if (this.override(method, response, cookie, request.headers.range)) return;
    if (method.startsWith('GET')) {
      response.end('<namespaces><namespace><name>urn:vim25</name><version>8.0.3.0</version></namespace></namespaces>');
    } else if (method === 'Login') {
      this.#login(body, cookie, response);
    } else if (method === 'RetrieveServiceContent' || method === 'CurrentTime') {
      answerSoap(response, method, method === 'CurrentTime' ? '<returnval>2026-01-01T00:00:00Z</returnval>' : CONTENT);
    } else if (cookie === undefined || !this.sessions.has(cookie)) {
      this.#expired(method, response);
    } else if (method === 'Logout') {
      this.sessions.delete(cookie);
      answerSoap(response, method, '');
    } else {
      answerSoap(
        response,
        method,
        '<returnval><objects><obj type="VirtualMachine">vm-1</obj><propSet><name>name</name><val>web</val></propSet></objects></returnval>',
      );
    }
  }

  #login(body: string, cookie: string | undefined, response: ServerResponse): void {
    const loggedIn = cookie !== undefined && this.sessions.has(cookie);
    if (loggedIn || !body.includes(`<password>${this.password}</password>`)) {
      answerFault(response, 'InvalidLogin');
      return;
    }
    const made = `vmware_soap_session="52 ab-${++this.#logins}/=="`;
    this.sessions.add(made);
    response.setHeader('set-cookie', ['other=1; Path=/', `${made}; Path=/; HttpOnly; Secure`]);
    answerSoap(response, 'Login', '<returnval><key>k</key></returnval>');
  }

  #expired(method: string, response: ServerResponse): void {
    if (this.expiry === 'fault' || method !== 'RetrievePropertiesEx') {
      answerFault(response, 'NotAuthenticated');
      return;
    }
    const missing =
      '<path>name</path><fault><fault q:type="NotAuthenticated"><privilegeId>System.Read</privilegeId></fault></fault>';
    answerSoap(
      response,
      method,
      `<returnval><objects><obj type="VirtualMachine">vm-1</obj><missingSet>${missing}</missingSet></objects></returnval>`,
    );
  }
}

function envelope(body: string): string {
  return (
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:q="http://www.w3.org/2001/XMLSchema-instance">' +
    `<soapenv:Body>${body}</soapenv:Body></soapenv:Envelope>`
  );
}

export function answerSoap(response: ServerResponse, method: string, inner: string): void {
  response.setHeader('content-encoding', 'gzip');
  response.end(gzipSync(envelope(`<${method}Response xmlns="urn:vim25">${inner}</${method}Response>`)));
}

export function answerFault(response: ServerResponse, type: string): void {
  response.statusCode = 500;
  response.end(
    envelope(
      `<soapenv:Fault><faultcode>ServerFaultCode</faultcode><detail><F q:type="${type}"/></detail></soapenv:Fault>`,
    ),
  );
}
