"""A sweep that is named alone is the one that was begun."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from rrl_dist.cli.tune_again import Begun, begun_as
from rrl_dist.core.errors import UserError
from rrl_dist.tune.search import Sweep
from tests.tune.small import ARM, composed

FIRST = ("sweep.trials=7", "sweep.answer.most=2", "cluster.threads=1", "seed=5")


def begin(folder: Path, *overrides: str) -> Sweep:
    """A sweep without trials, and the file of its configuration."""
    config = composed(*overrides)
    sweep = Sweep(config, ARM, {"model": {"a": 1}}, folder, {"model": "resnet18"})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    sweep.study().close()
    return sweep


def named_alone(folder: Path, *overrides: str, config: Any = None) -> Begun | None:
    given = ("name=small", *overrides)
    now = config or composed("seed=9", "ball.eps=0.5", "sweep.alpha=0.2", *overrides)
    return begun_as(now, given, folder)


def test_what_yaml_files_say_by_now_changes_nothing(tmp_path: Path) -> None:
    sweep = begin(tmp_path, *FIRST)
    begun = named_alone(tmp_path)
    assert begun is not None
    assert begun.variants == {"model": {"a": 1}}
    assert begun.choices == {"model": "resnet18"}
    again = Sweep(begun.config, ARM, begun.variants, tmp_path, begun.choices)
    assert again.frozen == sweep.frozen
    assert again.settings == sweep.settings
    again.study().close()  # and is taken for the same


def test_what_may_be_changed_is(tmp_path: Path) -> None:
    begin(tmp_path, *FIRST)
    given = ("sweep.trials=9", "sweep.answer.seeds=4", "cluster.workers=3")
    begun = named_alone(tmp_path, *given)
    assert begun is not None
    assert begun.config["sweep"]["trials"] == 9
    assert begun.config["sweep"]["answer"]["seeds"] == 4
    assert begun.config["sweep"]["answer"]["most"] == 2  # as it was last
    assert begun.config["cluster"]["workers"] == 3
    assert begun.config["seed"] == 5


@pytest.mark.parametrize("given", ["seed=5", "objective=tarrl", "sweep.alpha=0.1"])
def test_a_command_that_says_what_to_search_is_taken_at_its_word(
    given: str, tmp_path: Path
) -> None:
    begin(tmp_path, *FIRST)
    assert begun_as(composed(), ("name=small", given), tmp_path) is None
    with pytest.raises(UserError, match="give name=small alone to go on as it was"):
        Sweep(composed("seed=6"), ARM, {"model": {"a": 1}}, tmp_path).study()


def test_nothing_is_gone_on_with_that_was_not_begun(tmp_path: Path) -> None:
    assert named_alone(tmp_path) is None
    (tmp_path / "config.yaml").write_text(
        OmegaConf.to_yaml(OmegaConf.create(composed()))
    )
    assert named_alone(tmp_path) is None  # an attempt that was refused left that file


def test_files_by_group_do_not_set_a_sweep_apart(tmp_path: Path) -> None:
    begin(tmp_path)
    Sweep(composed(), ARM, {"model": {"a": 1}}, tmp_path, {}).study().close()
