#!/bin/bash
# Installs what the project needs and does nothing, quickly, when all of it is there. Speaks on standard error only.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
PATH=$PATH:/usr/sbin:/sbin

# Debian package, then a program that shows that it is installed.
NEEDED=(
  qemu-utils qemu-img
  qemu-system-common qemu-storage-daemon
  nbdkit nbdkit
  libnbd-bin nbdcopy
  nbd-server nbd-server
  e2fsprogs mke2fs
  fdisk sfdisk
  openssl openssl
)

say() { echo "setup: $*" >&2; }

missing_packages() {
  local i
  for ((i = 0; i < ${#NEEDED[@]}; i += 2)); do
    command -v "${NEEDED[i + 1]}" >/dev/null || echo "${NEEDED[i]}"
  done
  # Debian keeps PostgreSQL's programs out of PATH.
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || echo postgresql
}

install_packages() {
  local -a packages=("$@") root=()
  local line="apt-get install --no-install-recommends ${packages[*]}"
  if ! command -v apt-get >/dev/null; then
    say "these programs are missing: ${packages[*]} (names of the Debian packages)"
    exit 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null || ! { sudo -n true 2>/dev/null || { [ -t 0 ] && sudo true; }; }; then
      say "these Debian packages are missing and only root can install them. Run as root:"
      say "  $line"
      exit 1
    fi
    root=(sudo)
  fi
  say "installing ${packages[*]}"
  local -a apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
  # Package lists may be absent or too old; try without the update first only when there are any.
  if ! { "${apt[@]}" install -y --no-install-recommends "${packages[@]}" </dev/null >&2 2>/dev/null ||
    { "${apt[@]}" update </dev/null >&2 && "${apt[@]}" install -y --no-install-recommends "${packages[@]}" </dev/null >&2; }; }; then
    say "apt-get failed. Try: $line"
    exit 1
  fi
}

mapfile -t packages < <(missing_packages)
if [ "${#packages[@]}" -gt 0 ]; then
  install_packages "${packages[@]}"
  hash -r
  mapfile -t packages < <(missing_packages)
  if [ "${#packages[@]}" -gt 0 ]; then
    say "apt-get was content, yet these still lack their programs: ${packages[*]}"
    exit 1
  fi
fi

if [ ! -x node_modules/.bin/node ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  if ! command -v npm >/dev/null; then
    say 'npm is missing. Run as root: apt-get install npm'
    exit 1
  fi
  say 'npm ci'
  # npm warns that the Node it runs on is older than the one it is about to install: that is the point.
  npm ci --loglevel=error --no-progress >&2
  touch node_modules/.package-lock.json
fi
