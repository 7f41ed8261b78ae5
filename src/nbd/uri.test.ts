import assert from 'node:assert/strict';
import test from 'node:test';
import * as fc from 'fast-check';
import { hasCode } from '#/lib/errors.ts';
import { formatNbdUri, parseNbdUri } from './uri.ts';
import type { NbdAddress } from './uri.ts';

const GOOD: [uri: string, address: NbdAddress][] = [
  ['nbd://example.com', { exportName: '', host: 'example.com', port: 10809 }],
  ['nbd://example.com/', { exportName: '', host: 'example.com', port: 10809 }],
  ['nbd://example.com//disk', { exportName: '/disk', host: 'example.com', port: 10809 }],
  ['nbd://example.com:1234/hello%20world', { exportName: 'hello world', host: 'example.com', port: 1234 }],
  ['nbd://h/a/../b', { exportName: 'a/../b', host: 'h', port: 10809 }],
  ['nbd:///disk', { exportName: 'disk', host: 'localhost', port: 10809 }],
  ['nbd://[::1]:99/x', { exportName: 'x', host: '::1', port: 99 }],
  ['nbd+unix:///disk?socket=/run/a+b%20c.sock', { exportName: 'disk', socketPath: '/run/a+b c.sock' }],
  ['nbd+unix://?socket=rel.sock', { exportName: '', socketPath: 'rel.sock' }],
  ['nbds://h/x', { exportName: 'x', host: 'h', port: 10809, tls: {} }],
  [
    'nbds://10.0.0.1/x?tls-certificates=/etc/pki&tls-hostname=hub',
    { exportName: 'x', host: '10.0.0.1', port: 10809, tls: { certificatesDir: '/etc/pki', hostname: 'hub' } },
  ],
  [
    'nbds+unix:///x?tls-certificates=/p&socket=/s',
    { exportName: 'x', socketPath: '/s', tls: { certificatesDir: '/p' } },
  ],
];

test('NBD URIs are read as the specification says', () => {
  for (const [uri, address] of GOOD) assert.deepEqual(parseNbdUri(uri), address, uri);
});

test('what is not understood is refused instead of ignored', () => {
  const bad = [
    '',
    'http://h/x',
    'nbd:h',
    'nbd+ssh://h/x',
    'nbd://h/x#part',
    'nbd://h:0/x',
    'nbd://h:65536/x',
    'nbd://h:port/x',
    'nbd://user@h/x',
    'nbd://[::1/x',
    'nbd://h/%zz',
    'nbd://h/%ff',
    'nbd://h/a%00b',
    `nbd://h/${'x'.repeat(4097)}`,
    'nbd://h/x?socket=/s',
    'nbd://h/x?tls-certificates=/p',
    'nbds://h/x?tls-psk-file=/p',
    'nbds://h/x?tls-verify-peer=0',
    'nbds://h/x?tls-certificates=',
    'nbd+unix:///x',
    'nbd+unix:///x?socket=',
    'nbd+unix://h/x?socket=/s',
    'nbd+unix:///x?socket=/s&socket=/t',
    'nbd+unix:///x?socket=%00abstract',
  ];
  for (const uri of bad)
    assert.throws(
      () => parseNbdUri(uri),
      (error) => hasCode(error, 'CONFIG_INVALID'),
      uri,
    );
});

test('formatting an address and reading it back changes nothing', () => {
  const text = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 }).filter((name) => !name.includes('\0'));
  const tls = fc.option(
    fc.record({ certificatesDir: text, hostname: text }, { requiredKeys: [], noNullPrototype: true }),
    { nil: undefined },
  );
  const place = fc.oneof(
    fc.record({ socketPath: text }),
    fc.record({
      host: fc.constantFrom('localhost', '127.0.0.1', '::1', 'a.b'),
      port: fc.integer({ min: 1, max: 65_535 }),
    }),
  );
  fc.assert(
    fc.property(text, place, tls, (exportName, where, security) => {
      const address: NbdAddress = { exportName, ...where, ...(security && { tls: security }) };
      assert.deepEqual(parseNbdUri(formatNbdUri(address)), address);
    }),
  );
});
