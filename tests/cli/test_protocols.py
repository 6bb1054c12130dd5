"""Several protocols, seeds of heads, labels and data sets, as a person runs them."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from rrl_dist.cli.main import main
from rrl_dist.core.storage import read_json
from rrl_dist.training.build import load_classifier
from tests.cli.harness import TINY

pytestmark = pytest.mark.slow

PROTOCOLS = {"slf": "slf_small", "urrl": "urrl", "tenth": "aff_pgd"}
SHORT = [word for word in TINY if not word.startswith(("suite", "evaluate"))]
SHORT += ["cluster=debug", "cluster.threads=1", "loader=memory", "data.size=8"]
SHORT += ["suite=pgd20", "suite.curve=null", "evaluate.limit=40", "evaluate.gallery=2"]
SHORT += ["probe=none", "protocol.train.epochs=1", "views@protocol.views=none"]
MANY = [
    *(f"+protocol@protocols.{name}={own}" for name, own in PROTOCOLS.items()),
    *(f"protocols.{name}.train.epochs=1" for name in PROTOCOLS),
    *(f"protocols.{name}.train.batch_size=64" for name in PROTOCOLS),
    *("protocols.tenth.labels=0.1", "head_seeds=[0,1]"),
]


class Run:
    """A command in this process, with everything it keeps in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str) -> str:
        """Returns what was printed."""
        own = [f"storage={self.folder}", f"betons={self.folder / 'betons'}"]
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as told:
            patch.setattr("sys.argv", ["rrl", *arguments, *own])
            patch.setenv("COLUMNS", "160")
            main()
        return told.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("protocols"))


@pytest.fixture(scope="module")
def many(run: Run) -> Path:
    """Two arms by three protocols with two head seeds."""
    run("run", *SHORT, *MANY, "name=many")
    return run.folder / "many"


def test_each_arm_is_judged_by_every_protocol_with_every_seed(many: Path) -> None:
    found = read_json(many / "results.json")
    names = [
        f"{arm}-{protocol}-head{seed}"
        for arm in ("simclr", "deacl")
        for protocol in PROTOCOLS
        for seed in (0, 1)
    ]
    assert found["arm_order"] == names
    for name in names:
        own = found["arms"][name]
        assert f"{own['arm']}-{own['protocol']}-head{own['head_seed']}" == name
        about = load_classifier(many / "classifiers" / name)[1].training
        assert about["seed"] == own["head_seed"]
        before = load_file(many / f"models/{own['arm']}/model.safetensors")
        after = load_file(many / f"classifiers/{name}/model.safetensors")
        same = [torch.equal(v, after[f"encoder.{k}"]) for k, v in before.items()]
        assert all(same) == (own["protocol"] == "slf")
    for group in found["heads"]:
        heads = [f"{group['arm']}-{group['protocol']}-head{s}" for s in (0, 1)]
        values = [found["arms"][name]["worst"]["value"] for name in heads]
        assert group["worst"]["values"] == values
        assert group["worst"]["mean"] == pytest.approx(sum(values) / 2, abs=1e-6)
    assert len(found["heads"]) == 6
    assert (many / "protocols.md").is_file()
    assert read_json(many / "cost.json")["arms"].keys() == set(names)


def test_one_protocol_alone_gives_the_same_numbers(many: Path, run: Run) -> None:
    """A head does not depend on what else its encoder is judged by."""
    own = ("protocols=null", "head_seeds=null", "name=alone", "protocol=slf_small")
    run("run", *SHORT, *own, "protocol.train.batch_size=64")
    alone = read_json(run.folder / "alone/results.json")["arms"]
    both = read_json(many / "results.json")["arms"]
    for arm in ("simclr", "deacl"):
        file = "classifiers/{}/model.safetensors"
        one = (run.folder / "alone" / file.format(arm)).read_bytes()
        assert one == (many / file.format(f"{arm}-slf-head0")).read_bytes()
        known = {k: v for k, v in both[f"{arm}-slf-head0"].items() if k in alone[arm]}
        assert known == alone[arm]


def test_a_run_that_is_started_again_does_nothing_twice(many: Path, run: Run) -> None:
    before = (many / "results.json").read_bytes()
    printed = run("run", *SHORT, *MANY, "name=many")
    assert "running  probe" not in printed
    assert "running  evaluate" not in printed
    assert "done     probe-deacl-tenth-head1" in printed
    assert (many / "results.json").read_bytes() == before


def test_the_plan_lists_every_stage(run: Run) -> None:
    printed = run("run", *SHORT, *MANY, "name=planned", "--plan")
    for stage in ("probe-simclr-slf-head0", "evaluate-deacl-tenth-head1"):
        assert stage in printed


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another data set: 24 images of two classes in a folder."""
    for split, count in (("train", 12), ("test", 6)):
        for place, name in enumerate(("dark", "light")):
            folder = tmp_path / "other" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                grey = 40 + 150 * place + number
                Image.new("RGB", (8, 8), (grey,) * 3).save(folder / f"{number}.png")
    return tmp_path / "other"


TRANSFER = (
    *("+data@tasks.folder=imagefolder", "tasks.folder.size=8"),
    *("tasks.folder.val_fraction=0", "+tasks.own=[0,1,2]"),
)


def test_a_task_may_be_another_data_set(other: Path, run: Run) -> None:
    own = (*TRANSFER, f"tasks.folder.root={other}", "protocol.train.batch_size=8")
    run("run", *SHORT, *own, "name=transfer")
    folder = run.folder / "transfer"
    found: dict[str, Any] = read_json(folder / "results.json")
    assert found["tasks"] == {"folder": None, "own": [0, 1, 2]}
    for arm in ("simclr", "deacl"):
        there, here = (found["arms"][f"{arm}-{task}"] for task in ("folder", "own"))
        assert there["data"] == "imagefolder"
        assert "data" not in here
        assert there["worst"]["count"] == 12
        _, artefact = load_classifier(folder / f"classifiers/{arm}-folder")
        assert artefact.classes == ("dark", "light")
        # Normalized as the encoder was trained.
        encoder = read_json(folder / f"models/{arm}/model.json")["model"]
        assert artefact.model["mean"] == encoder["mean"]
    assert "folder is imagefolder; own is classes 0, 1, 2" in (
        (folder / "report.md").read_text()
    )


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("tasks.folder.root=/nowhere", "tasks.folder.root"),
        ("tasks.folder.size=32", "tasks.folder.size=32, and encoders"),
        ("tasks.folder.val_fraction=2", "tasks.folder.val_fraction=2"),
        ("tasks.folder.classes=[dark]", "tasks.folder has one class"),
        ("tasks.folder.classes=[grey,dark]", "tasks.folder"),
    ],
)
def test_mistakes_about_another_data_set_name_the_task(
    changed: str, told: str, other: Path, run: Run, capsys: Any
) -> None:
    own = [*TRANSFER, f"tasks.folder.root={other}", "protocol.train.batch_size=8"]
    with pytest.raises(SystemExit):
        run("run", *SHORT, *own, changed, "name=wrong")
    line = capsys.readouterr().err.strip()
    assert told in line
    assert "\n" not in line


def test_a_head_may_be_an_mlp(run: Run) -> None:
    own = ("head@protocol.head=mlp", "protocol.head.hidden=16")
    run("run", *SHORT, *own, "protocol.batch_norm=frozen", "name=mlp")
    folder = run.folder / "mlp"
    model, artefact = load_classifier(folder / "classifiers/simclr")
    assert artefact.head is not None
    assert sum("head.mlp" in name for name in model.state_dict()) >= 6
    arm = read_json(folder / "results.json")["arms"]["simclr"]
    assert arm["worst"]["count"] == 40
    assert "bound" not in arm or not arm["bound"]


def test_a_suite_that_reads_features_refuses_such_a_head(run: Run, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        run("run", *SHORT, "head@protocol.head=mlp", "suite=representation", "name=no")
    assert "head that is not linear shows none" in capsys.readouterr().err
