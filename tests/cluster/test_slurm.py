"""The Slurm script, with programs in the place of Slurm's that write down what they are
told."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.programs import PATIENCE, program


@pytest.fixture
def slurm(tree: Path) -> Path:
    """Slurm's commands, and a run that saves when it is asked to end."""
    told = f'echo "$(basename "$0") $*" >>{tree}/slurm'
    names = 'case $1 in show) printf "a\\nb\\n" ;; esac'
    program(tree / "bin/scontrol", f"#!/bin/sh\n{told}\n{names}\n")
    program(tree / "bin/srun", f"#!/bin/sh\n{told}\nexec sleep 600\n")
    once = f"[ -e {tree}/there ] || {{ touch {tree}/there; exit 1; }}"
    program(tree / "bin/sleep", '#!/bin/sh\n[ "$1" = 5 ] || exec /bin/sleep "$@"\n')
    program(tree / ".venv/bin/python", f"#!/bin/sh\ncat >/dev/null\n{once}\n")
    saves = f"trap 'echo saved >>{tree}/run; exit 130' TERM"
    begun = f'echo "$@" $RAY_ADDRESS >{tree}/run; touch {tree}/begun'
    program(
        tree / ".venv/bin/rrl",
        f'#!/bin/bash\n{saves}\n{begun}\n[ "$1" = quick ] && exit 3\n'
        "while :; do /bin/sleep 0.05; done\n",
    )
    return tree


def batch(tree: Path, *words: str, nodes: int = 2) -> "subprocess.Popen[bytes]":
    """As Slurm starts the script on the first of a job's nodes."""
    variables = {
        "PATH": f"{tree}/bin:{os.environ['PATH']}",
        "HOME": str(tree),
        "SLURM_SUBMIT_DIR": str(tree),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_JOB_NODELIST": "[a-b]",
        "SLURM_CPUS_ON_NODE": "32",
        "SLURM_GPUS_ON_NODE": "4",
    }
    script = str(tree / "cluster/slurm.sh")
    return subprocess.Popen([script, *words], env=variables, stderr=subprocess.PIPE)


def ended(job: "subprocess.Popen[bytes]") -> tuple[int, str]:
    _, errors = job.communicate(timeout=PATIENCE)
    return job.returncode, errors.decode()


def test_a_slurm_job_runs_on_all_its_nodes(slurm: Path) -> None:
    status, _ = ended(batch(slurm, "quick", "experiment=demo"))
    assert status == 3, "the run's own"
    lines = (slurm / "slurm").read_text().splitlines()
    started = [line.partition("cluster/")[2] for line in lines if "srun" in line]
    assert all("--cpus-per-task=32" in line for line in lines if "srun" in line)
    assert sorted(started) == [
        "node.sh head --block",
        "node.sh worker a --block",
    ]
    asked = "quick cluster=auto cluster.workers=8 experiment=demo a:6379\n"
    assert (slurm / "run").read_text() == asked
    assert list((slurm / ".ray").iterdir()) == [], "the token is gone"
    assert "requeue" not in (slurm / "slurm").read_text()


def test_a_slurm_job_on_one_node_starts_no_other(slurm: Path) -> None:
    status, _ = ended(batch(slurm, "quick", nodes=1))
    assert status == 3
    assert (slurm / "slurm").read_text().count("srun") == 1


def test_a_slurm_job_whose_time_is_over_saves_and_is_queued_again(slurm: Path) -> None:
    job = batch(slurm, "run")
    deadline = time.monotonic() + PATIENCE
    while not (slurm / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    status, _ = ended(job)
    assert status == 130
    assert (slurm / "run").read_text().endswith("saved\n")
    assert "scontrol requeue 7" in (slurm / "slurm").read_text()
    assert list((slurm / ".ray").iterdir()) == []


def test_a_slurm_job_with_nothing_to_do_is_refused(slurm: Path) -> None:
    status, told = ended(batch(slurm))
    assert (status, told.count("\n")) == (2, 1)
    assert not (slurm / "slurm").exists()
