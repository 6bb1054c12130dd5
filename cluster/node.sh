#!/usr/bin/env bash
# Start a node of a Ray cluster on this machine, with the settings that runs need:
#   cluster/node.sh head [OPTIONS OF ray start]
#   cluster/node.sh worker HEAD [OPTIONS OF ray start]     HEAD: its address
# Ray's token must be in ~/.ray/auth_token, or where RAY_AUTH_TOKEN_PATH says.
#
#   NODE_INTERFACE    by which nodes reach each other; unset: that of the default route
#   NODE_PORT         of the head; unset: 6379
#   DASHBOARD_HOST    where the head's dashboard listens, which takes jobs too; unset:
#                     127.0.0.1, this machine alone
set -eu
cd "$(dirname "$0")/.."  # a job runs where ray start was given

usage() {
    echo "usage: cluster/node.sh head [OPTIONS], or cluster/node.sh worker HEAD [OPTIONS]" >&2
    exit 2
}

default_interface() {
    awk '$2 == "00000000" {print $1; exit}' /proc/net/route
}

role=${1:-}
[ "$role" = head ] || { [ "$role" = worker ] && [ $# -ge 2 ]; } || usage
shift
port=${NODE_PORT:-6379}

# What jobs and their shells call python is that of .venv.
export PATH="$PWD/.venv/bin:$PATH" RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
interface=${NODE_INTERFACE:-$(default_interface)}
if [ -n "$interface" ]; then
    export GLOO_SOCKET_IFNAME="$interface" NCCL_SOCKET_IFNAME="$interface"
fi
# Read by the head: how soon a node that does not answer counts as lost.
export RAY_health_check_period_ms="${RAY_health_check_period_ms:-1000}"
export RAY_health_check_timeout_ms="${RAY_health_check_timeout_ms:-5000}"
export RAY_health_check_failure_threshold="${RAY_health_check_failure_threshold:-3}"
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"

if [ "$role" = head ]; then
    exec .venv/bin/ray start --head --port="$port" \
        --dashboard-host="${DASHBOARD_HOST:-127.0.0.1}" "$@"
fi
head=$1
shift
exec .venv/bin/ray start --address="$head:$port" "$@"
