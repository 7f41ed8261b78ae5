import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { SendenseError, hasCode } from '#/lib/errors.ts';
import { TinyVcenter, answerFault, answerSoap, scriptedServer } from './doubles.ts';
import type { ScriptedServer } from './doubles.ts';
import { getProperties, listProperties } from './properties.ts';
import { openSession } from './session.ts';
import type { Session } from './session.ts';
import { isFault, moRef } from './soap.ts';
import { fetchThumbprint, normalizeThumbprint, parseAddress } from './tls.ts';

const VM = moRef('VirtualMachine', 'vm-1');
const INSTANCE = moRef('ServiceInstance', 'ServiceInstance');
async function withVcenter(work: (vcenter: TinyVcenter, server: ScriptedServer) => Promise<void>): Promise<void> {
  const vcenter = new TinyVcenter();
  await using server = await scriptedServer(vcenter.listener);
  await work(vcenter, server);
}

async function login(server: ScriptedServer, more: { password?: string; keepAliveMs?: number } = {}): Promise<Session> {
  const { address, sha256: thumbprint } = server;
  return openSession({ address, username: 'backup', password: 'secret', thumbprint, retryDelayMs: 1, ...more });
}

async function nameOf(session: Session): Promise<string | undefined> {
  return (await getProperties(session, VM, ['name'])).values.get('name')?.text;
}

test('a session negotiates the version, keeps its cookie as it was set and logs out in the end', () =>
  withVcenter(async (vcenter, server) => {
    {
      await using session = await login(server);
      assert.equal(session.about.instanceUuid, 'u-1');
      assert.equal(session.version, '8.0.3.0');
      assert.equal(await nameOf(session), 'web');
    }
    const last = vcenter.requests.at(-1);
    assert.equal(last?.method, 'Logout');
    assert.equal(last?.cookie, 'vmware_soap_session="52 ab-1/=="');
    assert.equal(last?.soapAction, '"urn:vim25/8.0.3.0"');
    assert.equal(vcenter.sessions.size, 0);
  }));

test('a wrong password is told as such, once, and neither error nor cause holds it', () =>
  withVcenter(async (vcenter, server) => {
    const error: unknown = await login(server, { password: 'hunter2' }).then(
      () => assert.fail('the login went through'),
      (reason: unknown) => reason,
    );
    assert.ok(hasCode(error, 'SOURCE_LOGIN_FAILED'));
    assert.ok(
      error instanceof SendenseError && !JSON.stringify([error.toWire(), error.stack, error.cause]).includes('hunter2'),
    );
    assert.equal(vcenter.count('Login'), 1);
  }));

for (const form of ['sha256', 'sha1'] as const) {
  test(`a ${form} thumbprint of another certificate lets no byte of a request out`, () =>
    withVcenter(async (vcenter, server) => {
      const wrong = server[form].replace(/^../, (byte) => (byte === '00' ? '01' : '00'));
      await assert.rejects(
        openSession({ address: server.address, username: 'u', password: 'p', thumbprint: wrong, retryDelayMs: 1 }),
        (error) => hasCode(error, 'THUMBPRINT_MISMATCH'),
      );
      assert.equal(server.connections, 1);
      assert.deepEqual(vcenter.requests, []);
      await using session = await openSession({
        address: server.address,
        username: 'u',
        password: 'secret',
        thumbprint: server[form].toLowerCase(),
      });
      assert.equal(session.generation, 1);
    }));
}

test('without a thumbprint a certificate of its own making is refused', () =>
  withVcenter(async (vcenter, server) => {
    await assert.rejects(openSession({ address: server.address, username: 'u', password: 'secret' }), (error) =>
      hasCode(error, 'TLS_FAILED'),
    );
    assert.deepEqual(vcenter.requests, []);
  }));

test('the certificate can be looked at without a request', () =>
  withVcenter(async (vcenter, server) => {
    const shown = await fetchThumbprint(server.address);
    assert.equal(shown.sha256, server.sha256);
    assert.equal(shown.sha1, server.sha1);
    assert.equal(shown.subject, 'CN=scripted');
    assert.ok(Temporal.Instant.compare(shown.validUntil, Temporal.Now.instant()) > 0);
    assert.deepEqual(vcenter.requests, []);
  }));

test('nobody there is SOURCE_UNREACHABLE, also when only the certificate is wanted', async () => {
  let address = '';
  {
    await using server = await scriptedServer(() => undefined);
    ({ address } = server);
  }
  await assert.rejects(fetchThumbprint(address), (error) => hasCode(error, 'SOURCE_UNREACHABLE'));
  await assert.rejects(openSession({ address, username: 'u', password: 'p', retryDelayMs: 1 }), (error) =>
    hasCode(error, 'SOURCE_UNREACHABLE'),
  );
});

for (const expiry of ['fault', 'missing'] as const) {
  test(`an expired session (${expiry}) is renewed once for many callers, and each call is repeated`, () =>
    withVcenter(async (vcenter, server) => {
      vcenter.expiry = expiry;
      await using session = await login(server);
      vcenter.sessions.clear();
      const names = await Promise.all(Array.from({ length: 8 }, () => nameOf(session)));
      assert.deepEqual(new Set(names), new Set(['web']));
      assert.equal(vcenter.count('Login'), 2);
      // A login on a session that is logged in would be refused, so it goes out without a cookie.
      assert.deepEqual(
        vcenter.requests.filter((entry) => entry.method === 'Login').map((entry) => entry.cookie),
        [undefined, undefined],
      );
      assert.equal(session.generation, 2);
    }));
}

test('a session that stays unauthenticated after a new login is given up', () =>
  withVcenter(async (vcenter, server) => {
    await using session = await login(server);
    vcenter.override = (method, response) => {
      if (method !== 'RetrievePropertiesEx') return false;
      answerFault(response, 'NotAuthenticated');
      return true;
    };
    await assert.rejects(nameOf(session), (error) => isFault(error, 'NotAuthenticated'));
    assert.equal(vcenter.count('Login'), 2);
  }));

test('a password changed meanwhile is SOURCE_LOGIN_FAILED at the renewal', () =>
  withVcenter(async (vcenter, server) => {
    await using session = await login(server);
    vcenter.sessions.clear();
    vcenter.password = 'other';
    await assert.rejects(nameOf(session), (error) => hasCode(error, 'SOURCE_LOGIN_FAILED'));
  }));

test('a list whose session expires between pages begins anew', () =>
  withVcenter(async (vcenter, server) => {
    await using session = await login(server);
    let pages = 0;
    vcenter.override = (method, response, cookie) => {
      if (cookie === undefined || !vcenter.sessions.has(cookie)) return false;
      const page = (id: string, token: string): true => {
        const object = `<objects><obj type="VirtualMachine">${id}</obj></objects>`;
        answerSoap(response, method, `<returnval>${token}${object}</returnval>`);
        return true;
      };
      if (method === 'CreateContainerView') {
        answerSoap(response, method, '<returnval type="ContainerView">view-1</returnval>');
        return true;
      }
      if (method === 'RetrievePropertiesEx') return page('vm-1', '<token>t1</token>');
      if (method !== 'ContinueRetrievePropertiesEx') return false;
      if (++pages === 1) {
        vcenter.sessions.clear();
        answerFault(response, 'NotAuthenticated');
        return true;
      }
      return page('vm-2', '');
    };
    const found = await listProperties(session, { VirtualMachine: ['name'] }, 1);
    assert.deepEqual(
      found.map((object) => object.ref.value),
      ['vm-1', 'vm-2'],
    );
    assert.equal(vcenter.count('CreateContainerView'), 2);
  }));

test('pages that never end are given up', () =>
  withVcenter(async (vcenter, server) => {
    await using session = await login(server);
    vcenter.override = (method, response) => {
      if (!method.includes('RetrieveProperties')) return false;
      answerSoap(response, method, '<returnval><token>again</token></returnval>');
      return true;
    };
    await assert.rejects(getProperties(session, VM, ['name']), (error) => isFault(error, 'MalformedAnswer'));
  }));

test('a question is repeated through 502, 503 and a broken connection, an order is not', () =>
  withVcenter(async (vcenter, server) => {
    await using session = await login(server);
    const failures = [502, 503, 0];
    vcenter.override = (method, response) => {
      if (method === 'Logout') return false;
      const status = failures.shift();
      if (status === undefined) return false;
      if (status === 0) response.destroy();
      else response.writeHead(status).end('<html>busy</html>');
      return true;
    };
    assert.equal(await nameOf(session), 'web');
    assert.equal(vcenter.count('RetrievePropertiesEx'), 4);
    failures.push(503);
    await assert.rejects(
      session.call(VM, 'RemoveSnapshot_Task', { removeChildren: false }),
      (error) =>
        hasCode(error, 'SOURCE_UNREACHABLE') && error instanceof SendenseError && error.details['status'] === 503,
    );
    assert.equal(vcenter.count('RemoveSnapshot_Task'), 1);
  }));

test('an answer that unpacks to more than memory should hold is refused', () =>
  withVcenter(async (vcenter, server) => {
    await using session = await login(server);
    vcenter.override = (method, response) => {
      if (method !== 'RetrievePropertiesEx') return false;
      response.setHeader('content-encoding', 'gzip');
      response.end(gzipSync(Buffer.alloc(40 * 1024 * 1024, 32)));
      return true;
    };
    await assert.rejects(nameOf(session), (error) => isFault(error, 'MalformedAnswer'));
  }));

test('something that is no vCenter is told as such', () =>
  withVcenter(async (vcenter, server) => {
    vcenter.override = (_method, response) => {
      response.end('<html><body>It works</body></html>');
      return true;
    };
    await assert.rejects(login(server), (error) => {
      return error instanceof SendenseError && ['SOURCE_FAULT', 'SOURCE_UNREACHABLE'].includes(error.code);
    });
    vcenter.override = (_method, response) => {
      response.writeHead(403).end();
      return true;
    };
    await assert.rejects(login(server), (error) => hasCode(error, 'SOURCE_UNREACHABLE'));
  }));

test('an idle session is kept alive until it is closed', () =>
  withVcenter(async (vcenter, server) => {
    const called = Promise.withResolvers<undefined>();
    vcenter.override = (method) => {
      if (vcenter.count('CurrentTime') === 3) called.resolve(undefined);
      return method === '';
    };
    const session = await login(server, { keepAliveMs: 1 });
    await called.promise;
    await session[Symbol.asyncDispose]();
    const before = vcenter.requests.length;
    await assert.rejects(session.call(INSTANCE, 'CurrentTime', {}), (error) => hasCode(error, 'SOURCE_UNREACHABLE'));
    assert.equal(vcenter.requests.length, before);
  }));

test('an aborted call ends with the reason while the server is still thinking', () =>
  withVcenter(async (vcenter, server) => {
    await using session = await login(server);
    const abort = new AbortController();
    const reason = new SendenseError('CANCELLED', 'enough');
    vcenter.override = (method) => {
      if (method !== 'QueryChangedDiskAreas') return false;
      abort.abort(reason);
      return true;
    };
    await assert.rejects(session.call(VM, 'QueryChangedDiskAreas', { startOffset: 0 }, abort.signal), reason);
  }));

test('names with every kind of sign arrive as they are', () =>
  withVcenter(async (vcenter, server) => {
    await using session = await login(server);
    const description = '<a href="x">&amp;\n\'ü😀\'</a>';
    await session.call(VM, 'CreateSnapshotEx_Task', { name: 'n', description, memory: false });
    assert.ok(
      vcenter.requests.at(-1)?.body.includes('&#60;a href=&#34;x&#34;&#62;&#38;amp;&#10;&#39;ü😀&#39;&#60;/a&#62;'),
    );
  }));

test('addresses are taken in three forms and no other', () => {
  assert.deepEqual(parseAddress('vc.example'), { host: 'vc.example', port: 443, origin: 'https://vc.example' });
  assert.deepEqual(parseAddress('vc.example:8443').port, 8443);
  assert.deepEqual(parseAddress('https://[::1]:8989/sdk'), { host: '::1', port: 8989, origin: 'https://[::1]:8989' });
  for (const bad of [
    '',
    'http://vc.example',
    'https://u:p@vc.example',
    'https://vc.example/ui',
    'ftp://x',
    'https://a/?b=c',
  ]) {
    assert.throws(
      () => parseAddress(bad),
      (error) => hasCode(error, 'INVALID_REQUEST'),
      bad,
    );
  }
});

test('thumbprints are taken with and without separators', () => {
  const sha1 = 'AB:'.repeat(19) + 'AB';
  assert.equal(normalizeThumbprint(sha1.toLowerCase()), 'AB'.repeat(20));
  assert.equal(normalizeThumbprint(`SHA256:${'ab'.repeat(32)}`), 'AB'.repeat(32));
  for (const bad of ['', 'AB', 'XY'.repeat(20), 'AB'.repeat(21)]) {
    assert.throws(
      () => normalizeThumbprint(bad),
      (error) => hasCode(error, 'INVALID_REQUEST'),
    );
  }
});
