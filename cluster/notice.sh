#!/bin/sh
# Tell Ray that this node is about to be taken away: its workers save and leave, and the
# next group of them begins elsewhere (docs/training.md).
#   cluster/notice.sh aws        wait for the notice of a spot machine, 2 minutes before
#   cluster/notice.sh gcp        the same, 30 seconds before
#   cluster/notice.sh SECONDS    now; returns when Ray has left, or after SECONDS
# METADATA: address of the cloud's metadata service, unset: its own.
# PROC: where this machine's processes are told of, unset: /proc.
set -eu
cd "$(dirname "$0")/.."

# As node.sh has it: a head that asks for a token answers nobody else.
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
metadata=${METADATA:-http://169.254.169.254}
proc=${PROC:-/proc}
every=${NOTICE_EVERY:-5}  # seconds between two looks

# Ray's command is told which node: by itself it does not find out.
of_raylet() { # an option's name; prints its value
    for process in "$proc"/[0-9]*; do
        [ "$(cat "$process/comm" 2>/dev/null)" = raylet ] || continue
        tr '\0' '\n' <"$process/cmdline" | sed -n "s/^--$1=//p"
        return
    done
}

leave() { # seconds, why
    node=$(of_raylet node_id)
    if [ -z "$node" ]; then
        echo "cluster/notice.sh: no node of Ray runs here, so none is told of" >&2
        exit 1
    fi
    .venv/bin/ray drain-node --address "$(of_raylet gcs-address)" --node-id "$node" \
        --reason DRAIN_NODE_REASON_PREEMPTION \
        --reason-message "$2" --deadline-remaining-seconds "$1"
}

aws_has_noticed() {
    token=$(curl -fs -m 5 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" \
        "$metadata/latest/api/token") &&
        curl -fs -m 5 -o /dev/null -H "X-aws-ec2-metadata-token: $token" \
            "$metadata/latest/meta-data/spot/instance-action"
}

gcp_has_noticed() {
    [ "$(curl -fs -m 5 -H "Metadata-Flavor: Google" \
        "$metadata/computeMetadata/v1/instance/preempted")" = TRUE ]
}

ray_is_here() {
    grep -qsx raylet "$proc"/[0-9]*/comm
}

case ${1:-} in
    aws | gcp)
        if ! command -v curl >/dev/null; then
            echo "cluster/notice.sh: curl is not installed, so no notice is heard of;" \
                "apt-get install curl" >&2
            exit 1
        fi
        ;;
esac

case ${1:-} in
    aws)
        until aws_has_noticed; do sleep "$every"; done
        leave 110 "spot machine is taken back"
        ;;
    gcp)
        until gcp_has_noticed; do sleep "$every"; done
        leave 25 "spot machine is taken back"
        ;;
    [1-9]*)
        leave "$1" "pod is being deleted"
        left=$1
        while ray_is_here && [ "$left" -gt 0 ]; do
            sleep 1
            left=$((left - 1))
        done
        ;;
    *)
        echo "usage: cluster/notice.sh aws, gcp or SECONDS" >&2
        exit 2
        ;;
esac
