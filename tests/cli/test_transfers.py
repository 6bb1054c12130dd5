"""Images that are made on other classifiers, as a person asks for them."""

from pathlib import Path

import pytest

from rrl_dist.core.storage import read_json
from tests.cli.harness import TINY, rrl
from tests.mistakes.commands import refused

OF_ALL = tuple(own for own in TINY if not own.startswith("suite."))


@pytest.mark.slow
def test_a_run_shows_each_arm_the_images_of_all(tmp_path: Path) -> None:
    settings = (*OF_ALL, "suite=transfer", "name=a", "cluster=debug")
    printed = rrl(tmp_path, "run", *settings, "suite.surrogates=arms")
    assert "made on" in printed
    assert "## Images made on others" in (tmp_path / "runs/a/report.md").read_text()
    arms = read_json(tmp_path / "runs/a/results.json")["arms"]
    for target, numbers in arms.items():
        found = {
            name.split("-from-")[1].split("-linf")[0]: value["value"]
            for name, value in numbers["components"].items()
            if "-from-" in name
        }
        assert found.keys() == arms.keys()
        # On itself an attack is the one that needs no other.
        (own,) = (
            value["value"]
            for name, value in numbers["components"].items()
            if name.startswith("mi-fgsm10-linf")
        )
        assert found[target] == own
        assert own <= min(found.values())

    # Of one classifier, by folder; what it is counts, not how it is named.
    model = tmp_path / "runs/a/classifiers"
    printed = rrl(
        tmp_path,
        "evaluate",
        f"model={model / 'simclr'}",
        *("name=b", "data=digits", "loader=memory", "ball=linf_005", "cluster=debug"),
        *("evaluate.limit=70", "suite=transfer"),
        f"suite.surrogates={{deacl:{model / 'deacl'}}}",
    )
    (alone,) = read_json(tmp_path / "runs/b/results.json")["arms"].values()
    among = arms["simclr"]["components"]
    shared = {name: value for name, value in among.items() if "-simclr-" not in name}
    assert alone["components"] == shared


@pytest.mark.parametrize("named", ["null", "foo"])
def test_surrogates_that_are_none_are_refused_before_anything_runs(
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = ["suite=transfer", f"suite.surrogates={named}", "cluster=debug"]
    own += [f"storage={tmp_path}", f"betons={tmp_path}", "name=x"]
    line = refused(["run", *OF_ALL, *own], monkeypatch, capsys)
    assert "set arms, or {NAME:MODEL}" in line
    assert not list(tmp_path.glob("x/stages/*"))
