#!/bin/sh
# Whether a container is in order: if a Ray node runs in it, the node answers.
#   docker/healthy.sh node       a Ray node must run in it
set -eu
raylets=$(grep -lsx raylet /proc/[0-9]*/comm || true)
[ -n "$raylets" ] || [ "${1:-}" = node ] || exit 0
wget -q -T 5 -O - http://127.0.0.1:52365/api/local_raylet_healthz | grep -q success
