"""A verdict marks its rows in every table, and says why below."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.report.load import load_run
from rrl_dist.report.markdown import leads, tables, write_report
from rrl_dist.report.terms import compare_terms

Results = dict[str, Any]
FAILED = {
    "level": "fail",
    "told": "the gradient is 0 at 60 of 60 right images",
    "stronger": "suite=autoattack",
}
OK = {"level": "ok", "told": "nothing", "stronger": None}


def verdict(level: str, **checks: Any) -> dict[str, Any]:
    return {"level": level, "images": 64, "checks": {"randomized": OK, **checks}}


@pytest.fixture
def judged(results: Callable[..., Results]) -> Results:
    """Three arms, the first of which hides its gradients, and the last perhaps."""
    made = results("simclr", "deacl", "tarrl")
    arms, suspect = made["arms"], {**FAILED, "level": "suspect"}
    arms["simclr"]["verdict"] = verdict("fail", zero_gradients=FAILED)
    arms["deacl"]["verdict"] = verdict("pass")
    arms["tarrl"]["verdict"] = verdict("suspect", more_steps=suspect)
    for arm in arms.values():  # so that there is an overview
        mean = {"value": 0.3, "low": 0.2, "high": 0.4, "count": 360}
        arm["corruptions"] = {"error": mean, "kinds": {"noise": {"error": mean}}}
        for component in arm["components"].values():
            component["after"] = [{"attack": "clean", **component}]
        name = "mi-fgsm10-from-other-linf@0.05"
        arm["components"][name] = {**arm["components"]["clean"]}
    return made


def test_every_table_has_mark_and_note(
    judged: Results, save: Callable[[Path, Results], Path], tmp_path: Path
) -> None:
    run = load_run(save(tmp_path / "demo", judged))
    found = tables([run], "deacl")
    assert len(found) >= 5
    for title, table in found.items():
        cells = " ".join(map(" ".join, [table.header, *table.rows]))
        assert "simclr [fail]" in cells, title
        assert "tarrl (simclr) [suspect]" in cells, title
        assert "deacl (simclr) [" not in cells
        assert "[fail] simclr: attacks were led astray" in table.caption
        assert (
            "zero gradients: the gradient is 0 at 60 of 60 right images "
            "(run: suite=autoattack)."
        ) in table.caption
        assert "[suspect] tarrl: attacks may have been led astray" in table.caption
        assert "deacl: attacks" not in table.caption
    (lead,) = leads([run])
    assert lead.startswith("simclr [fail] stands ")


def test_files_beside_the_report_have_them_too(
    judged: Results, save: Callable[[Path, Results], Path], tmp_path: Path
) -> None:
    folder = save(tmp_path / "demo", judged)
    files = write_report([folder], tmp_path / "out", against="deacl")
    pages = {file.name: file.read_text() for file in files if file.suffix == ".md"}
    assert set(pages) == {"report.md", "overview.md", "corruptions.md", "terms.md"}
    for text in pages.values():
        assert "simclr [fail]" in text
        assert "[fail] simclr: attacks were led astray" in text


def test_over_seeds_one_failure_marks_the_row(
    judged: Results, save: Callable[[Path, Results], Path], tmp_path: Path
) -> None:
    other = {**judged, "name": "other", "seed": 1}
    other["arms"] = {k: {**v, "verdict": None} for k, v in judged["arms"].items()}
    folders = [save(tmp_path / r["name"], r) for r in (judged, other)]
    for folder, seed in zip(folders, (0, 1), strict=True):
        (folder / "config.yaml").write_text(f"seed: {seed}\n")
    runs = [load_run(folder) for folder in reversed(folders)]
    for table in tables(runs, "deacl").values():
        cells = " ".join(map(" ".join, [table.header, *table.rows]))
        assert "simclr [fail]" in cells
        assert "[fail] demo: simclr: attacks were led astray" in table.caption
    assert len(compare_terms(runs, "simclr")) > 0
    off = tables(runs, "simclr")["Against simclr"]
    assert "off: simclr [fail]" in off.header


def test_a_run_without_a_verdict_has_no_mark(
    results: Callable[..., Results],
    save: Callable[[Path, Results], Path],
    tmp_path: Path,
) -> None:
    """Of the form before it, too."""
    made = {**results("simclr", "deacl"), "schema": 1}
    run = load_run(save(tmp_path / "demo", made))
    assert run.arms[0].verdict is None
    for table in tables([run], None).values():
        assert "[fail]" not in table.to_markdown()
        assert "astray" not in table.caption


@pytest.mark.parametrize(
    "wrong", [{"level": "perhaps", "checks": {}}, {"level": "fail"}, {"checks": {}}]
)
def test_a_verdict_of_another_form_is_told_of(
    results: Callable[..., Results],
    save: Callable[[Path, Results], Path],
    tmp_path: Path,
    wrong: dict[str, Any],
) -> None:
    made = results("simclr")
    made["arms"]["simclr"]["verdict"] = wrong
    with pytest.raises(UserError, match="evaluate the run again"):
        load_run(save(tmp_path, made))
