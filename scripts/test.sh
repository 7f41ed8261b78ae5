#!/bin/bash
# Unit tests, then every end-to-end suite. Node's runner is content with no test at all; this is not.
set -uo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
export PATH="$PWD/node_modules/.bin:$PATH"

echo '== unit'
unit=0
node scripts/unit.ts || unit=$?
node scripts/e2e.ts
e2e=$?
if [ "$unit" -ne 0 ]; then echo 'unit tests failed' >&2; fi
exit $((unit > e2e ? unit : e2e))
