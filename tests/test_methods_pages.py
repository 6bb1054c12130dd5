"""Every method has a page, and what the pages say is so."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

import tests.test_readme as readme
from rrl_dist.cli.app import CONFIGS
from rrl_dist.core.batch import Batch
from rrl_dist.data.views import Views
from rrl_dist.models.encoder import Encoder
from rrl_dist.objectives.objective import Frozen, Objective
from rrl_dist.training.build import build, build_objective
from tests.composing import (
    CLASSES,
    SAMPLES,
    compose,
    names,
    random_batch,
    tiny_encoder,
    views_of,
)

PAGES = Path(__file__).parents[1] / "docs" / "methods"
METHODS = names("objective")
_ROW = re.compile(r"^\| `([\w./]+)` \| `([^`]*)` \|", re.MULTILINE)
_PASSES = re.compile(r"Encoder passes per image and step: (\d+) forward, (\d+) back")

_GOES_WITH = re.compile(r"^Goes with (.*?)\n\n", re.MULTILINE | re.DOTALL)
_MEASURED = re.compile(
    r"<!-- (results|terms)(?:: (\w+))? -->\n(.*?)<!-- end -->", re.DOTALL
)

every = pytest.mark.parametrize("name", METHODS)


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text()


def settings(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """What a file sets, by dotted name; targets and choices of other files aside."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from settings(value, f"{prefix}{key}.")
        elif key == "defaults":
            chosen = {k: v for d in value if d != "_self_" for k, v in d.items()}
            yield from ((f"objective/{k}", v) for k, v in chosen.items())
        elif not key.startswith("_"):
            yield f"{prefix}{key}", value


def test_every_page_is_a_methods_and_every_method_can_be_inside_another() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {*METHODS, "README"}
    assert {path.stem for path in (CONFIGS / "objective/base").glob("*")} == {*METHODS}


@every
def test_the_base_of_that_name_is_that_method(name: str) -> None:
    alone = compose("pretrain", f"objective={name}")["objective"]
    inside = compose("pretrain", "objective=tarrl", f"objective/base={name}")
    assert inside["objective"]["base"] == alone
    deep = compose(
        "pretrain",
        "objective=tarrl",
        "objective/base=tarrl",
        f"objective/base@objective.base.base={name}",
    )
    assert deep["objective"]["base"]["base"] == alone


@every
def test_the_page_tells_every_setting_with_its_value(name: str) -> None:
    config = yaml.safe_load((CONFIGS / "objective" / f"{name}.yaml").read_text())
    told = {key: yaml.safe_load(value) for key, value in _ROW.findall(page(name))}
    assert told == dict(settings(config, "objective."))


@every
def test_the_index_links_to_the_page(name: str) -> None:
    assert f"[{name}]({name}.md)" in page("README")


@pytest.mark.parametrize("name", [n for n in METHODS if "\nGoes with" in page(n)])
def test_the_settings_that_it_goes_with_compose_and_draw_its_views(name: str) -> None:
    told = _GOES_WITH.search(page(name))
    assert told is not None
    quoted = " ".join(re.findall(r"`([^`]*)`", told[1])).split()
    chosen = [setting for setting in quoted if "=" in setting]
    config = compose("pretrain", f"objective={name}", *dict.fromkeys(chosen))
    views: Views = build(config["views"])
    assert len(views) == len(made(name)[1].views)


@pytest.mark.parametrize("name", [*METHODS, "README", "../comparison", "../../README"])
def test_a_measured_table_has_the_arms_of_its_experiment(name: str) -> None:
    """And of terms all but the one that they are against."""
    for kind, experiment, body in _MEASURED.findall(page(name)):
        assert experiment in names("experiment"), f"<!-- {kind} --> names none"
        arms = set(compose("run", f"experiment={experiment}")["arms"])
        if kind == "terms":
            file = CONFIGS / "experiment" / f"{experiment}.yaml"
            against = re.search(r"^#.* against=(\w+)", file.read_text(), re.MULTILINE)
            assert against is not None, experiment
            arms.remove(against[1])
        rows = [row for row in body.splitlines() if row.startswith("|")][2:]
        # A report has "arm (Method)".
        assert {row.split("|")[1].split()[0] for row in rows} == arms, experiment


def made(name: str) -> tuple[Objective, Batch]:
    """With the file's own settings but for widths, which cost time alone."""
    config = compose("pretrain", f"objective={name}", f"views={views_of(name)}")
    objective = dict(config["objective"])
    for part in (objective, objective.get("base", {})):
        for head in ("projector", "predictor"):
            if isinstance(part.get(head), Mapping):
                part[head] = {**part[head], "hidden": 8}
    built = build_objective(
        objective,
        encoder=tiny_encoder(0),
        teacher=Frozen(tiny_encoder(1), sha256="teacher"),
        num_classes=CLASSES,
        image_size=16,
        seed=0,
    )
    views: Views = build(config["views"])
    return built.train(), random_batch(views, 16)


class Counted:
    """Images that pass the encoders of an objective, there and back."""

    def __init__(self, objective: Objective) -> None:
        self.forward = self.backward = 0
        for module in objective.modules():
            if isinstance(module, Encoder):
                module.register_forward_hook(self._note)

    def _note(self, _: object, __: object, h: Tensor) -> None:
        self.forward += len(h)
        if h.requires_grad:
            h.register_hook(self._back)

    def _back(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


@every
def test_the_page_tells_the_passes_that_a_step_takes(name: str) -> None:
    objective, batch = made(name)
    counted = Counted(objective)
    objective(objective.inner(batch))["loss"].backward()
    told = _PASSES.search(" ".join(page(name).split()))
    assert told is not None
    found = (counted.forward / SAMPLES, counted.backward / SAMPLES)
    assert (int(told[1]), int(told[2])) == found


@every
def test_the_page_names_every_term_that_is_logged(name: str) -> None:
    objective, batch = made(name)
    with torch.no_grad():
        terms = objective(objective.inner(batch))
    base = getattr(objective, "base", None)
    inside = {}
    if isinstance(base, Objective):
        # The base's own are on its own page.
        inside = base(batch).keys() - {"loss"}
        terms["BASE_loss"] = terms.pop(f"{type(base).__name__.lower()}_loss")
    for term in terms.keys() - inside:
        assert f"`{term}`" in page(name), term


@pytest.mark.parametrize("name", [*METHODS, "README"])
def test_commands_and_paths_of_the_page_exist(name: str) -> None:
    file = f"docs/methods/{name}.md"
    readme.test_every_path_exists(file)
    readme.test_every_command_composes(file)
    readme.test_every_pretraining_draws_the_views_that_its_method_reads(file)
