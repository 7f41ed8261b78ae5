#!/bin/bash
# Types, lint, format, structure, generated files. Runs all of them and fails when one did.
set -uo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
export PATH="$PWD/node_modules/.bin:$PATH"
failed=()

step() {
  local name=$1
  shift
  echo "check: $name"
  "$@" || failed+=("$name")
}

folders=()
for folder in src e2e bench scripts; do [ -d "$folder" ] && folders+=("$folder"); done

step types tsc -p .
step lint oxlint --type-aware "${folders[@]}"
step format biome format "${folders[@]}"
step structure node --test --test-reporter=dot src/boundaries.test.ts src/docs.test.ts
step generated node scripts/generate.ts --check

if [ "${#failed[@]}" -gt 0 ]; then
  echo "check: failed: ${failed[*]}" >&2
  exit 1
fi
echo 'check: all good'
