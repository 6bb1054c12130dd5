"""Someone who submits: a changed copy of this project, and a port that breaks off."""

import shutil
import subprocess
from pathlib import Path

from tests.cluster.by_hand import ByHand, until
from tests.cluster.files import ROOT
from tests.cluster.forwarder import Forwarder
from tests.training.nodes import PATIENCE

Done = subprocess.CompletedProcess[str]


def changed_copy(cluster: ByHand) -> Path:
    """Of this project, with code that tells that it is run, and by which processes, in
    the folder that FROM_HERE names."""
    copy = cluster.own / "copy"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.check_output(listing, cwd=ROOT, text=True).split("\0")
    for name in names:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    with (copy / "rrl_dist/__init__.py").open("a") as code:
        code.write(
            "import os\nfrom pathlib import Path\n"
            "if folder := os.environ.get('FROM_HERE'):\n"
            "    print('told by the copy:', folder)\n"
            "    own = Path(folder, str(os.getpid()))\n"
            "    own.write_bytes(Path('/proc/self/cmdline').read_bytes())\n"
        )
    return copy


def followed_through_cuts(cluster: ByHand, words: list[str], copy: Path) -> Done:
    """A command of `rrl submit` by a forwarded port, which breaks off twice."""
    out, err = cluster.own / "followed.out", cluster.own / "followed.err"
    with Forwarder(int(cluster.dashboard.rpartition(":")[2])) as port:
        address = f"address=http://127.0.0.1:{port.port}"
        command = [*words[:2], address, *words[2:]]
        environment = {**cluster.environment, "RAY_API_SERVER_ADDRESS": ""}
        with out.open("w") as stdout, err.open("w") as stderr:
            process = subprocess.Popen(
                command, cwd=copy, env=environment, stdout=stdout, stderr=stderr
            )
        try:
            for word in ("told by the copy", "going on from step"):

                def shown(word: str = word) -> bool:
                    return word in out.read_text() or process.poll() is not None

                until(shown, out.read_text)
                assert port.cut(2) >= 1, out.read_text() + err.read_text()
            status = process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
    return Done(command, status, out.read_text(), err.read_text())
