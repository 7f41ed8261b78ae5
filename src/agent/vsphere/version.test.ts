import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compareVersions, highestKnown } from './version.ts';

test('versions compare by number, part by part', () => {
  const sorted = ['10.0', '6.5', '6.7.3', '8.0.10.0', '8.0.3.0', '9.0.0.0'];
  assert.deepEqual([...sorted].sort(compareVersions), ['6.5', '6.7.3', '8.0.3.0', '8.0.10.0', '9.0.0.0', '10.0']);
  assert.equal(compareVersions('7.0', '7.0.0.0'), 0);
});

function published(version: string, ...prior: string[]): string {
  const priors = prior.map((entry) => `<version>${entry}</version>`).join('');
  return (
    '<?xml version="1.0"?><namespaces version="1.0"><namespace><name>urn:vim2</name><version>99.0</version></namespace>' +
    `<namespace><name>urn:vim25</name><version>${version}</version><priorVersions>${priors}</priorVersions></namespace></namespaces>`
  );
}

test('the newest version both sides know is chosen', () => {
  assert.equal(highestKnown(published('8.0.3.0', '8.0.2.0', '7.0.3.2')), '8.0.3.0');
  assert.equal(highestKnown(published('12.0.0.0', '11.1', '8.0.3.0', '9.0.0.0')), '9.0.0.0');
  assert.equal(highestKnown(published('6.5')), '6.5');
  assert.equal(highestKnown(published('nonsense')), '6.0');
});
