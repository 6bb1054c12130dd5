from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.aggregate import wilson
from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json
from rrl_dist.evaluate.leaderboard import leaderboard_entry, write_entry

# The keys of RobustBench's own files, model_info/cifar10/Linf/*.json.
KEYS = {
    *("link", "name", "authors", "additional_data", "number_forward_passes"),
    *("dataset", "venue", "architecture", "eps", "clean_acc", "reported"),
    *("autoattack_acc", "unreliable"),
}


def results(**changes: Any) -> dict[str, Any]:
    norm, eps = changes.pop("norm", "linf"), changes.pop("eps", 8 / 255)
    split = changes.pop("split", "test")
    names = ("clean", f"autoattack-{norm}@{eps:.4g}")
    counts = (8353, 5666)
    arm = {
        "objective": "DeACL",
        "backbone": "ResNet-18",
        "components": {
            name: wilson(count, 10_000).as_dict()
            for name, count in zip(names, counts, strict=True)
        },
        "worst": wilson(counts[1], changes.pop("count", 10_000)).as_dict(),
        "stopped": None,
        **changes,
    }
    about = {"norm": norm, "eps": eps, "data": "cifar10", "split": split}
    return {**about, "arms": {"deacl": arm}}


def entry_of(found: dict[str, Any]) -> dict[str, Any] | None:
    return leaderboard_entry(found, "deacl", images=10_000)


def test_an_entry_has_their_keys_and_their_forms() -> None:
    entry = entry_of(results())
    assert entry is not None
    assert set(entry) == KEYS
    numbers = {"clean_acc": "83.53", "autoattack_acc": "56.66", "eps": "8/255"}
    assert numbers.items() <= entry.items()
    assert (entry["dataset"], entry["architecture"]) == ("cifar10", "ResNet-18")
    assert {entry[key] for key in ("link", "authors", "venue", "unreliable")} == {None}


def test_l2_has_a_decimal_radius() -> None:
    entry = entry_of(results(norm="l2", eps=0.5))
    assert entry is not None
    assert entry["eps"] == "0.5"


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "l1", "eps": 12.0},
        {"count": 9_999},
        {"split": "val"},
        {"components": {"clean": wilson(8, 10).as_dict()}},
        {
            "components": {
                "clean": wilson(8, 10).as_dict(),
                "autoattack-rand-linf@0.03137": wilson(3, 10).as_dict(),
            }
        },
    ],
)
def test_what_has_no_place_there_has_no_entry(changes: dict[str, Any]) -> None:
    assert entry_of(results(**changes)) is None


def test_results_of_another_form_are_told_of() -> None:
    with pytest.raises(UserError, match="the results of deacl lack 'norm'"):
        entry_of({"arms": {"deacl": {}}})


def verdict(level: str) -> dict[str, Any]:
    told = {"told": "the gradient is 0 at 60 of 60 right images", "stronger": "x"}
    checks = {"zero_gradients": {"level": level, **told}}
    return {"level": level, "images": 64, "checks": checks}


def test_a_result_whose_verdict_is_fail_is_not_told_to_others(tmp_path: Path) -> None:
    lines: list[str] = []
    settings: dict[str, Any] = {"images": 10_000, "notify": lines.append}
    file = tmp_path / "leaderboard" / "deacl.json"
    for level in ("suspect", "pass"):
        write_entry(tmp_path, results(verdict=verdict(level)), "deacl", **settings)
        assert read_json(file) == entry_of(results())
    assert lines == []
    failed = results(verdict=verdict("fail"))
    write_entry(tmp_path, failed, "deacl", **settings)
    assert not file.exists()
    assert lines == [
        "deacl has no leaderboard entry, its verdict is fail: zero gradients"
    ]
    with pytest.raises(UserError, match=r"^deacl has no leaderboard entry"):
        entry_of(failed)
    # What had no place there needs no line.
    elsewhere = results(verdict=verdict("fail"), norm="l1", eps=12.0)
    write_entry(tmp_path, elsewhere, "deacl", **settings)
    assert len(lines) == 1
    assert entry_of(elsewhere) is None
