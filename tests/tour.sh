#!/usr/bin/env bash
# Runs the tour of README.md as written, against a local system of its own, and looks at what it says.
set -euo pipefail
cd "$(dirname "$0")/.."

tour=$(sed -n '/^<!-- tour -->$/,/^<!-- end -->$/p' README.md | sed '/^<!--/d; /^```/d')
log=$(mktemp)
cargo build --quiet --bin local
target/debug/local up --memory --clock 2026-01-01T00:00:00Z --port 0 >"$log" &
server=$!
trap 'kill "$server"; rm -f "$log"' EXIT
for _ in $(seq 100); do
  HOST=$(sed -n 's/^ready //p' "$log")
  [[ -n $HOST ]] && break
  sleep 0.1
done
export HOST

said=$(bash -euo pipefail -c "$tour")
printf '%s\n' "$said"
expect() { grep -qF "$1" <<<"$said" || { printf 'the tour did not say: %s\n' "$1" >&2; exit 1; }; }
expect '"state":"published"'
expect '"outcome":"already_applied"'
expect '"code":"hold_period"'
expect '"amount":"90.00"'
expect '"ok":true'
expect '"agrees":true'
expect 'Refunds took back 10.00 USD; 90.00 USD remain.'
if grep -qF '"holds":false' <<<"$said" || grep -qF '"ok":false' <<<"$said"; then
  echo 'the tour went wrong' >&2
  exit 1
fi
