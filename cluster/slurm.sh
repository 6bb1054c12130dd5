#!/usr/bin/env bash
# A run as a Slurm job: Ray on the job's nodes, each with a worker for every GPU, and the
# run on it. In the repository's folder, which all nodes share:
#   sbatch cluster/slurm.sh run experiment=deacl_imagenet storage=/shared/runs ...
# What follows is as for rrl; cluster=auto and cluster.workers are added. Edit the lines
# below, or overrule them: sbatch --nodes=4 cluster/slurm.sh ...
# Five minutes before its time is over the run saves, ends, and is queued again. If Slurm
# takes it away before, it goes on from its last checkpoint.
#SBATCH --job-name=rrl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=rrl-%j.out
set -eu
cd "$SLURM_SUBMIT_DIR"
[ $# -gt 0 ] || { echo "usage: sbatch cluster/slurm.sh run experiment=NAME ..." >&2; exit 2; }

WAIT=${WAIT:-300}  # seconds for all nodes to join
nodes=$SLURM_JOB_NUM_NODES
workers=$((nodes * ${SLURM_GPUS_ON_NODE:-1}))
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# A token of this job alone, which its nodes read in the home that they share.
mkdir -p "$HOME/.ray"
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$HOME/.ray/auth_token-$SLURM_JOB_ID"
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")
export RAY_ADDRESS="$first:6379"

steps=()
# shellcheck disable=SC2329  # the trap calls it
end_nodes() {
    rm -f "$RAY_AUTH_TOKEN_PATH"
    [ ${#steps[@]} = 0 ] || kill "${steps[@]}" 2>/dev/null || true
    wait
}
trap end_nodes EXIT

start() { # how many, which, and what each runs
    srun --nodes="$1" --ntasks="$1" --cpus-per-task="$SLURM_CPUS_ON_NODE" "${@:2}" &
    steps+=($!)
}
start 1 --nodelist="$first" cluster/node.sh head --block
if [ "$nodes" -gt 1 ]; then
    start $((nodes - 1)) --exclude="$first" cluster/node.sh worker "$first" --block
fi

nodes_are_there() {
    .venv/bin/python - "$nodes" <<'PYTHON'
import sys
import ray
try:
    ray.init(logging_level="ERROR")
except ConnectionError:
    sys.exit(1)
sys.exit(sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]))
PYTHON
}

until nodes_are_there; do
    if [ "$SECONDS" -gt "$WAIT" ]; then
        echo "slurm.sh: $nodes nodes with Ray were not there after $WAIT s; see above" >&2
        exit 1
    fi
    sleep 5
done

# The driver hears of the end of the job's time, not bash while it waits.
.venv/bin/rrl "$1" cluster=auto cluster.workers="$workers" "${@:2}" &
driver=$!
asked=no
trap 'asked=yes; kill -TERM "$driver" 2>/dev/null || true' TERM
status=0
wait "$driver" || status=$?
while kill -0 "$driver" 2>/dev/null; do
    status=0
    wait "$driver" || status=$?
done
if [ "$asked" = yes ] && [ "$status" != 0 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
