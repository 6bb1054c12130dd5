"""What README.md and its companions say exists, composes and runs."""

import importlib
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rrl_dist.attacks
import rrl_dist.objectives
from rrl_dist.attacks import Attack, Linf
from rrl_dist.attacks.margins import cross_entropy
from rrl_dist.cli.app import CONFIGS
from rrl_dist.cli.arguments import jobs
from rrl_dist.cli.bench import BENCHES
from rrl_dist.cli.main import COMMANDS
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.objectives.objective import Frozen
from rrl_dist.training.build import build, build_objective
from rrl_dist.training.rehearsal import check_views
from tests.composing import compose, names, steps, tiny_encoder, tiny_model

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "docs/data.md", "docs/decisions.md"]
PAGES += ["docs/strategies.md", "docs/mistakes.md", "cluster/README.md"]
PAGES += ["docs/comparing.md", "docs/evaluation.md", "docs/finetuning.md"]
PAGES += ["docs/protocols.md"]
PAGES += ["docs/comparison.md", "docs/evaluator.md"]
PAGES += ["docs/sweeps.md", "docs/sweeps-stopping.md", "docs/checkpoints.md"]
PAGES += ["docs/debugging.md", "docs/training.md"]
PAGES += ["docs/doctor.md", "docs/images.md", "docs/verdict.md"]
PAGES += ["docs/corruptions.md"]
# A path of the tree, in backticks; NAME and CLASS stand for what a reader puts in.
_PATH = re.compile(r"`((?:rrl_dist|configs|tests|docker|docs|cluster|\.ci)/[\w./-]*)`")
_FILE = re.compile(r"`(Makefile|[A-Z]+\.md|[\w-]+\.toml)`")
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(rrl [^`]+)`")

page = pytest.mark.parametrize("page", PAGES)


def text(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str, language: str) -> list[str]:
    return [body for kind, body in _FENCE.findall(text(page)) if kind == language]


def shell_lines(page: str) -> Iterator[str]:
    """Commands of shell blocks, continued lines joined, and those in running text."""
    for body in blocks(page, "sh"):
        yield from body.replace("\\\n", " ").splitlines()
    yield from _INLINE.findall(_FENCE.sub("", text(page)))


def rrl_commands(page: str) -> list[list[str]]:
    """The words after `rrl`, of every line that has it."""
    found = []
    for line in shell_lines(page):
        words = shlex.split(line, comments=True)
        names = [word.rpartition("/")[2] for word in words]
        if "rrl" in names:
            found += submitted(words[names.index("rrl") + 1 :])
    return found


def submitted(words: list[str]) -> list[list[str]]:
    """Of `rrl submit SETTINGS COMMAND`, its own settings and the command, apart."""
    if words[:1] != ["submit"]:
        return [words]
    bare = (i for i, w in enumerate(words[1:], 1) if "=" not in w and w[0] != "-")
    first = next(bare, len(words))
    own = [word for word in words[:first] if not word[0].isupper()]
    command = words[first:] if words[first : first + 1] != ["COMMAND"] else []
    is_command = command and command[0] in COMMANDS
    return [own, [*command, "cluster=auto"]] if is_command else [own]


@page
def test_every_path_exists(page: str) -> None:
    named = _PATH.findall(text(page))
    missing = [n for n in named if "NAME" not in n and not (ROOT / n).exists()]
    files = _FILE.findall(text(page))
    missing += [n for n in files if not (ROOT / n).exists()]
    here = (ROOT / page).parent
    missing += [n for n in _LINK.findall(text(page)) if not (here / n).exists()]
    assert missing == []


def test_the_file_tree_of_the_readme_exists() -> None:
    tree = next(body for body in blocks("README.md", "text") if "rrl_dist/" in body)
    folder, found = ROOT, 0
    for line in tree.splitlines():
        indent, name = len(line) - len(line.lstrip()), line.split()[0]
        path = (folder if indent else ROOT) / name
        assert path.exists(), line
        folder = folder if indent else path
        found += 1
    assert found > 10


@page
def test_every_make_target_exists(page: str) -> None:
    targets = re.findall(r"^(\w+):", text("Makefile"), re.MULTILINE)
    named = re.findall(r"(?:^|`)make (\w+)", text(page), re.MULTILINE)
    assert set(named) <= set(targets)


@page
def test_every_command_composes(page: str) -> None:
    for name, *words in rrl_commands(page):
        if name in ("COMMAND", "--help", "--version"):
            continue
        assert name in COMMANDS
        if name == "bench":
            name = BENCHES[words[0]]
        if "--config-dir" in words:  # what that folder holds is the reader's own
            words = words[: words.index("--config-dir")]
            own = ("experiment=", "sweep=")
            words = [word for word in words if not word.startswith(own)]
        options = {word for word in words if word.startswith("-")}
        assert options <= {"--plan", "--help", "--multirun", "--cluster"}
        # `rrl report demo` has words without "="; NAME stands for what a reader gives.
        overrides = [word for word in words if "=" in word and "NAME" not in word]
        if name == "evaluate":  # which takes a folder where others take an architecture
            overrides = [re.sub("^model=", "artefact=", o) for o in overrides]
        known = [o for o in overrides if not NEW.search(o)]
        for job in jobs(known, sweeping="--multirun" in options):
            compose(name, *(str(override.input_line) for override in job))


@page
def test_every_pretraining_draws_the_views_that_its_method_reads(page: str) -> None:
    for name, *words in rrl_commands(page):
        # Values in capitals stand for what a reader gives.
        overrides = [w for w in words if "=" in w and not re.search("=[A-Z]+$", w)]
        if name != "pretrain" or NEW.search(" ".join(words)):
            continue
        config = compose(name, *overrides)
        objective = build_objective(
            config["objective"],
            encoder=tiny_encoder(),
            teacher=Frozen(tiny_encoder(), sha256="teacher"),
            num_classes=3,
            image_size=16,
            seed=0,
        )
        check_views(objective, build(config["views"]))


@cache
def settings() -> set[str]:
    """Every group, and every setting of every file."""
    folders = [path for path in CONFIGS.rglob("*") if path.is_dir()]
    known = {path.relative_to(CONFIGS).as_posix() for path in folders}
    for command in {*COMMANDS, *BENCHES.values()}:
        known |= set(keys(compose(command)))
    for group in ("objective", "cluster", "strategy"):
        for name in names(group):
            known |= set(keys(compose("pretrain", f"{group}={name}")))
    for name in names("suite"):
        known |= set(keys(compose("evaluate", f"suite={name}")))
    return known


@page
def test_every_setting_in_the_text_exists(page: str) -> None:
    named = re.findall(r"`([a-z][\w.]*)=[^`]*`", _FENCE.sub("", text(page)))
    for table in re.findall(r"^\| key \|.*\n((?:\|.*\n)*)", text(page), re.MULTILINE):
        cells = [row.split("|")[1] for row in table.splitlines()[1:]]
        named += [key for cell in cells for key in re.findall("`(.*?)`", cell)]
    assert {key.replace("ARM", "deacl") for key in named} - settings() == set()


def keys(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings and of their groups."""
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from keys(value, f"{prefix}{key}.")


# What CONTRIBUTING.md adds; composed below, where its files are there.
NEW = re.compile("align_uniform|pgd_noise|flowers")


def test_the_readme_has_the_three_commands_of_its_first_screen() -> None:
    commands = rrl_commands("README.md")
    assert ["run", "experiment=deacl_cifar10"] in [words[:2] for words in commands]
    assert any("cluster=auto" in words for words in commands)
    assert "make demo" in text("README.md")


def test_the_library_examples_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluated, attacked = blocks("README.md", "python")
    names: dict[str, object] = {}
    exec(compile(evaluated, "README.md", "exec"), names)  # our own page
    assert 0 <= names["robust_acc"] <= 1
    assert (tmp_path / "runs/mine/results.json").is_file()
    exec(compile(attacked, "README.md", "exec"), names)
    assert isinstance(names["x_adv"], torch.Tensor)


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of CONTRIBUTING.md, beside those of the package."""
    for body in (
        *blocks("CONTRIBUTING.md", "python"),
        *blocks("CONTRIBUTING.md", "yaml"),
    ):
        file = tmp_path / body.splitlines()[0].removeprefix("# ")
        assert not (ROOT / file.relative_to(tmp_path)).exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body)
    for package in (rrl_dist.objectives, rrl_dist.attacks):
        extra = tmp_path / package.__name__.replace(".", "/")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(extra)])
    for name in ("objectives.align_uniform", "attacks.noise"):
        monkeypatch.delitem(sys.modules, f"rrl_dist.{name}", raising=False)
    return tmp_path


def with_files(added: Path, command: str, *overrides: str) -> dict:
    searched = f"hydra.searchpath=[file://{added / 'configs'}]"
    return compose(command, searched, *overrides)


def test_the_objective_of_contributing_trains(added: Path) -> None:
    (words,) = [w for w in rrl_commands("CONTRIBUTING.md") if NEW.search(" ".join(w))][
        :1
    ]
    config = with_files(added, words[0], *words[1:], "optim=sgd")
    steps({**config, "teacher": None}, model=tiny_model(), size=16)


def test_the_objectives_own_test_passes(added: Path) -> None:
    file = added / "tests/objectives/test_align_uniform.py"
    spec = importlib.util.spec_from_file_location("of_contributing", file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [getattr(module, name) for name in vars(module) if name.startswith("test_")]
    assert tests
    for test in tests:
        test()


def test_the_attack_of_contributing_keeps_the_contract(added: Path) -> None:
    override = "attack@probe.attack=noise"
    config = dict(with_files(added, "pretrain", override)["probe"]["attack"])
    del config["ball"]
    attack: Attack = build(config, ball=Linf(0.1), seed=0, micro_batch=4)
    x = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    nn.init.normal_(model[1].weight, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    whole = attack.run(model, x, y)
    assert bool((attack.ball.distance(whole.x_adv, x) <= 0.1 * (1 + 1e-6)).all())
    assert 0 <= float(whole.x_adv.min()) <= float(whole.x_adv.max()) <= 1
    loss, attacked = (cross_entropy(model(images), y) for images in (x, whole.x_adv))
    assert bool((attacked > loss).all())
    parts = [
        attack(model, x[i : i + 1], y[i : i + 1], torch.tensor([i])) for i in range(6)
    ]
    assert torch.equal(torch.cat(parts), whole.x_adv)
    calm = build(config, ball=Linf(0.0), seed=0, micro_batch=4)
    assert torch.equal(calm(model, x, y), x)


def test_the_suite_of_contributing_builds(added: Path) -> None:
    config = with_files(added, "evaluate", "suite=pgd_noise")
    suite = build_suite(config["suite"], config["ball"], seed=0)
    assert [name.partition("-")[0] for name in suite.full] == [
        "clean",
        "pgd20",
        "noise100",
    ]


def test_the_data_set_of_contributing_builds(added: Path) -> None:
    config = with_files(added, "pretrain", "data=flowers")
    assert build(config["data"]).size == 64
