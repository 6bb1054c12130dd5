"""A cluster that is started, looked at and used as cluster/README.md says."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from rrl_dist.training.attempts import newest_step
from tests.cluster.by_hand import ByHand, started, until
from tests.cluster.files import ROOT
from tests.cluster.submitting import changed_copy, followed_through_cuts
from tests.evaluate.nodes import NoClusterError, free_port
from tests.training.nodes import title

pytestmark = pytest.mark.slow

# One method of the demo, each stage a handful of steps.
SMALL = (
    "experiment=demo",
    "~arms.deacl",
    "model.backbone.width=4",
    "arms.simclr.train.epochs=1",
    "protocol.train.max_steps=10",
    "evaluate.limit=64",
    "suite=pgd20",
    "cluster.workers=2",
    "cluster.threads=1",
)
LONG = (
    "data=digits",
    "model=tiny_cnn",
    "model.backbone.width=4",
    "objective=simclr",
    "views=digits",
    "optim=sgd",
    "loader=memory",
    "cluster.workers=2",
    "cluster.threads=1",
    "train.epochs=30",
    "train.checkpoint_every=2",
    "name=long",
)
Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ByHand]:
    try:
        with started() as found:
            yield found
    except NoClusterError as reason:
        pytest.skip(str(reason))


def places(cluster: ByHand) -> list[str]:
    """Those of the page."""
    return [f"storage={cluster.own}/runs", f"betons={cluster.own}/betons"]


def one_line(done: Done) -> str:
    """What a command that was refused says."""
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


def test_a_job_of_rays_own_command_ends_with_the_table(cluster: ByHand) -> None:
    command = cluster.said(
        ".venv/bin/ray job submit",
        **{"experiment": "name=plain", "cluster.workers": "", "data.root": ""},
    )
    done = cluster.run(*command, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^ simclr \(SimCLR\) +SmallCNN +\d", done.stdout, re.MULTILINE)
    assert (cluster.own / "runs/plain/report.md").is_file()


def saved(cluster: ByHand) -> int:
    """The newest step of the long run that is saved."""
    stages = cluster.own.glob("runs/long/stages/*")
    return max((newest_step(stage) or 0 for stage in stages), default=0)


def drivers(cluster: ByHand) -> list[int]:
    """Processes of jobs that train on the head."""
    told = {pid: title(pid).split(b"\0") for pid in cluster.head.pids()}
    entry = [b"-m", b"rrl_dist.cli.main", b"pretrain"]
    return [pid for pid, words in told.items() if words[1:4] == entry]


def test_a_submitted_job_is_lost_and_stopped_and_goes_on_by_its_name(
    cluster: ByHand,
) -> None:
    copy, seen = changed_copy(cluster), cluster.own / "seen"
    seen.mkdir()
    submit = ["rrl", "submit", f"FROM_HERE={seen}"]
    command = ["pretrain", *LONG, *places(cluster)]
    begun = cluster.run(*submit, "follow=false", "job=first", *command, cwd=copy)
    assert begun.returncode == 0, begun.stderr
    assert re.search(r"\d+ files, [\d.]+ MB, [\d.]+ MB compressed", begun.stdout)
    assert f"job first at {cluster.dashboard}: rrl pretrain" in begun.stdout
    until(lambda: saved(cluster), lambda: cluster.run("ray", "job", "logs", "first"))
    for pid in drivers(cluster):
        os.kill(pid, signal.SIGKILL)
    lost = cluster.run("rrl", "submit", "logs", "first")
    assert lost.returncode == 128 + signal.SIGKILL, lost.stdout
    assert "job first: failed" in lost.stderr

    before = saved(cluster)
    begun = cluster.run(*submit, "follow=false", "job=second", *command, cwd=copy)
    assert begun.returncode == 0, begun.stderr
    until(
        lambda: saved(cluster) > before,
        lambda: cluster.run("ray", "job", "logs", "second"),
    )
    stopped = cluster.run("rrl", "submit", "stop", "second")
    assert "second is told to stop" in stopped.stdout
    followed = cluster.run("rrl", "submit", "logs", "second")
    assert followed.returncode == 130, followed.stdout
    assert "job second: stopped" in followed.stderr

    again = followed_through_cuts(cluster, [*submit, *command], copy)
    assert again.returncode == 0, again.stdout + again.stderr
    (going,) = re.findall(r"going on from step (\d+)", again.stdout)
    assert int(going) > before
    assert again.stdout.count(f"told by the copy: {seen}") == 1
    assert "job long-" in again.stderr
    names = [path.read_bytes() for path in seen.iterdir()]  # of processes
    assert [name for name in names if name.startswith(b"ray::")], "workers, too"
    jobs = cluster.run("rrl", "submit", "jobs").stdout
    assert re.search(r"^FAILED +first +rrl pretrain", jobs, re.MULTILINE)
    assert re.search(r"^STOPPED +second +rrl pretrain", jobs, re.MULTILINE)
    assert re.search(r"^SUCCEEDED +long-\w+ +rrl pretrain", jobs, re.MULTILINE)


def test_a_job_that_fails_ends_as_it_does_where_there_is_a_cpu_for_it(
    cluster: ByHand,
) -> None:
    command = cluster.said(
        ".venv/bin/rrl submit run",
        **{"experiment": "", "cluster.workers": "", "cluster.min_workers": ""},
        **{"data.root": "data.root=/nowhere"},
    )
    submit, words = command[:2], command[2:]
    words += [*SMALL, "data=cifar10", "name=failed"]
    done = cluster.run(*submit, "job=failed", "entry.cpus=1", *words)
    assert done.returncode == 2, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("rrl run:")]
    assert len(told) == 1
    assert "/nowhere" in told[0]
    # The head has none.
    where = urlsplit(cluster.job("failed")["driver_agent_http_address"]).hostname
    assert where in {node.address for node in cluster.others}


def test_who_may_not_is_told_why(cluster: ByHand, tmp_path: Path) -> None:
    command = ["rrl", "submit", "jobs"]
    home = {"HOME": str(tmp_path), "RAY_AUTH_TOKEN_PATH": None}
    wrong = one_line(cluster.run(*command, **home, RAY_AUTH_TOKEN="ab" * 32))
    assert "does not take the token in RAY_AUTH_TOKEN; copy the head's" in wrong
    none = one_line(cluster.run(*command, **home, RAY_AUTH_MODE=None))
    assert "asks for a token, and there is none here; copy the head's" in none
    assert cluster.token.read_text() not in wrong + none
    nobody = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    away = one_line(cluster.run(*command[:2], f"address={nobody}", *command[2:]))
    assert f"no Ray dashboard answers at {nobody}; start the cluster, or" in away
    unknown = one_line(cluster.run("rrl", "submit", "logs", "who"))
    assert "knows no job who; rrl submit jobs lists them" in unknown


def test_a_driver_that_the_head_does_not_let_in_is_told_why(
    cluster: ByHand, tmp_path: Path
) -> None:
    """Where Ray itself would try for minutes."""
    run = ["rrl", "run", *SMALL, *places(cluster), "cluster=auto", "name=out"]
    home = {"HOME": str(tmp_path), "RAY_AUTH_TOKEN_PATH": None}
    head = f"{cluster.head.address}:{cluster.port}"
    wrong = one_line(
        cluster.run(*run, **home, RAY_ADDRESS=head, RAY_AUTH_TOKEN="ab" * 32)
    )
    assert wrong.startswith(f"rrl run: the Ray cluster at {head} asks for a token, and")
    nobody = f"{cluster.head.address}:{free_port(cluster.head.address)}"
    asked = ["rrl", "doctor", "--cluster", *places(cluster)]
    away = one_line(cluster.run(*asked, RAY_ADDRESS=nobody))
    assert away.startswith(f"rrl doctor: no Ray cluster answers at {nobody}; start its")


def pictures(root: Path) -> Path:
    """A small data set of image files."""
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (32, 32), (20 * i, 80 * label, 9)).save(
                root / name / f"{i}.png"
            )
    return root


def doctor(cluster: ByHand, images: Path, *more: str) -> Done:
    """On the head, which is told where the cluster is by Ray's own files there."""
    command = cluster.said(
        ".venv/bin/rrl doctor",
        **{"data": "data=imagefolder", "data.root": f"data.root={images}"},
    )
    address = f"{cluster.head.address}:{cluster.port}"
    return cluster.run(*command, *more, RAY_ADDRESS=address)


def rows(done: Done, check: str) -> list[str]:
    lines = [line.strip() for line in done.stdout.splitlines()]
    return [line for line in lines if re.match(rf"\w+ +{check}\b", line)]


def test_the_doctor_finds_what_is_wrong_on_one_node(cluster: ByHand) -> None:
    images = pictures(cluster.own / "images")
    (cluster.own / "betons").mkdir(exist_ok=True)
    sound = doctor(cluster, images, "disk_gb=0.01", "shared_memory_gb=0.01")
    assert sound.returncode == 0, sound.stdout + sound.stderr
    for check in ("versions", "network", "disk", "data", "storage"):
        assert all(row.startswith(("ok", "warn")) for row in rows(sound, check))
        assert rows(sound, check)

    node, other = cluster.others[1], cluster.others[0]
    packages = ROOT / ".venv/lib"
    (about,) = packages.glob("python3*/site-packages/timm-*.dist-info/METADATA")
    older = cluster.own / "METADATA"
    older.write_text(
        re.sub(r"^Version: .*", "Version: 0.0.7", about.read_text(), flags=re.MULTILINE)
    )
    full = cluster.own / "betons"
    cluster.join(
        node,
        [
            f"mount -B {older} {about}",
            f"mount -t tmpfs -o size=64k tmpfs {full}",
            f"(dd if=/dev/zero of={full}/more bs=1k count=100 2>/dev/null || true)",
            f"mount -t tmpfs tmpfs {images}",
        ],
    )
    ill = doctor(cluster, images, "disk_gb=0.01", "shared_memory_gb=0.01")
    assert ill.returncode == 1, ill.stdout + ill.stderr
    for check, told in {
        "versions": r"timm 0\.0\.7",
        "disk": re.escape(str(full)),
        "data": re.escape(str(images)),
    }.items():
        (failed,) = [row for row in rows(ill, check) if row.startswith("fail")]
        assert re.search(told, failed), failed
        assert node.address in failed
        assert other.address not in failed
