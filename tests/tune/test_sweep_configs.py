"""Every search space of configs/sweep fits what its own commands compose."""

import re
from functools import cache
from typing import Any

import pytest
import yaml

from rrl_dist.cli.app import CONFIGS
from rrl_dist.training.build import build, build_objective
from rrl_dist.training.rehearsal import check_views, untrained_teacher
from rrl_dist.tune.dimension import Floats
from rrl_dist.tune.keys import find, paths
from rrl_dist.tune.setting import flat
from rrl_dist.tune.space import Space, choices_of, parse_space
from tests.composing import compose, names, tiny_encoder, tiny_model

COMMAND = re.compile(r"rrl tune (sweep=.*)")


def commands() -> list[tuple[str, str]]:
    """Each file, and the settings of each command in the comment that begins it."""
    found = []
    for name in names("sweep"):
        text = (CONFIGS / "sweep" / f"{name}.yaml").read_text()
        comment = text.partition("\nspace:")[0].replace("\\\n#", "")
        found += [(name, line) for line in COMMAND.findall(comment)]
    return found


@cache
def composed(line: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The sweep, the flat configuration, and the files of groups that it chooses."""
    config = compose("tune", *line.split())
    sweep, setting = config["sweep"], flat(config, config["arm"])
    variants: dict[str, Any] = {}
    for key, chosen in choices_of(sweep).items():
        group = key.replace(".", "/")
        if (CONFIGS / group).is_dir():
            each = {f: compose("tune", *line.split(), f"{group}={f}") for f in chosen}
            variants[key] = {f: find(flat(c, None), key) for f, c in each.items()}
    return sweep, setting, variants


def parsed(line: str) -> Space:
    return parse_space(*composed(line))


def test_every_file_begins_with_a_command_of_its_own() -> None:
    assert {name for name, _ in commands()} == set(names("sweep"))
    for name, line in commands():
        assert f"sweep={name} " in line
        assert "name=NAME" in line


@pytest.mark.parametrize("name", names("sweep"))
def test_a_file_has_a_comment_and_a_space(name: str) -> None:
    text = (CONFIGS / "sweep" / f"{name}.yaml").read_text()
    assert re.match(r"# command   rrl tune .*\n(#  .*\n)*# what      .*\n", text)
    said = yaml.safe_load(text)
    assert set(said) <= {"space", "start"}
    assert said["space"]


@pytest.mark.parametrize(("name", "line"), commands())
def test_a_space_fits_what_its_command_composes(name: str, line: str) -> None:
    sweep, setting, variants = composed(line)
    space = parse_space(sweep, setting, variants)
    assert space.starts
    for values in (*space.starts, *space.grid(2)):
        changed = space.apply(setting, values, variants)
        assert set(changed) == set(setting)
        for dimension in space.dimensions:
            if dimension.name in values and dimension.key not in variants:
                assert find(changed, dimension.key) == values[dimension.name]
            assert (dimension.name in values) == dimension.active(values)


@pytest.mark.parametrize(("name", "line"), commands())
def test_a_start_sets_all_that_is_active(name: str, line: str) -> None:
    """So each is the paper's configuration, and no part of it is drawn at random."""
    space = parsed(line)
    for values in space.starts:
        active = {d.name for d in space.dimensions if d.active(values)}
        assert set(values) == active


@pytest.mark.parametrize(("name", "line"), commands())
def test_a_method_takes_starts_and_ends_of_the_ranges(name: str, line: str) -> None:
    sweep, setting, variants = composed(line)
    space = parse_space(sweep, setting, variants)
    ends = space.grid(2)
    for values in (*space.starts, ends[0], ends[-1]):
        stage = {**space.apply(setting, values, variants), "teacher_objective": None}
        objective = build_objective(
            stage["objective"],
            encoder=tiny_encoder(),
            teacher=untrained_teacher({**stage, "model": tiny_model()}),
            num_classes=3,
            image_size=16,
            seed=0,
        )
        check_views(objective, build(stage["views"]))


@pytest.mark.parametrize("name", ["tarrl", "spectral", "deacl", "urrl", "trades"])
def test_the_general_space_lies_around_the_weight_that_is_set(name: str) -> None:
    """Defaults of methods differ by orders of magnitude."""
    line = f"sweep=regularizer objective={name} name=x"
    sweep, setting, variants = composed(line)
    space = parse_space(sweep, setting, variants)
    weight = setting["objective"]["weight"]
    (dimension,) = space.dimensions
    assert isinstance(dimension.domain, Floats)
    ends = (dimension.domain.low, dimension.domain.high)
    assert ends == pytest.approx((weight / 100, weight * 100))
    assert space.starts == ({"objective.weight": weight},)


def test_the_wanted_settings_are_searched() -> None:
    keys = {d.key for _, line in commands() for d in parsed(line).dimensions}
    assert keys >= {
        "objective",
        "objective.weight",
        "objective.ball.eps",
        "objective.steps",
        "objective.ramp.end",
        "objective.temperature",
        "objective.base.temperature",
        "optim.lr",
    }


def test_a_kind_brings_its_own_settings_alone() -> None:
    line = next(line for name, line in commands() if name == "kind")
    sweep, setting, variants = composed(line)
    space = parse_space(sweep, setting, variants)
    for values in space.starts:
        changed = space.apply(setting, values, variants)
        own = variants["objective"][str(values["objective"])]
        assert list(paths(changed["objective"])) == list(paths(own))
        assert changed["objective"] == own
