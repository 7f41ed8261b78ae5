/** Stand-ins for tests: a session whose answers are given, and an HTTPS server that does as it is told. */
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { RequestListener } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
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
