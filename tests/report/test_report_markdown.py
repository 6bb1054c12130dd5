import re

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.report.load import load_run
from rrl_dist.report.markdown import write_report
from rrl_dist.report.tables import lead, robustness_table


@pytest.fixture
def folder(tmp_path, results, save, pictures):
    folder = save(tmp_path / "runs" / "demo", results("deacl", "simclr"))
    pictures(folder, "deacl")
    return folder


def links(page):
    return re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text())


def test_page_has_lead_table_and_links_to_what_was_written(folder, tmp_path):
    out = tmp_path / "out"
    written = write_report([folder], out, against=None)
    assert [path.name for path in written] == ["report.md", "curve.png", "gallery.png"]
    assert sorted(out.iterdir()) == sorted(written)
    run = load_run(folder)
    page = written[0].read_text()
    assert lead(run) in page
    assert robustness_table([run]).to_markdown().strip() in page
    assert links(written[0]) == ["curve.png", "gallery.png"]


def test_a_second_report_is_the_same_bytes(folder, tmp_path):
    first = write_report([folder], tmp_path / "a", against=None)
    second = write_report([folder], tmp_path / "b", against=None)
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_what_a_run_lacks_is_left_out(tmp_path, results, save):
    bare = results("simclr")
    bare["arms"]["simclr"]["curve"] = []
    written = write_report(
        [save(tmp_path / "bare", bare)], tmp_path / "out", against=None
    )
    assert [path.name for path in written] == ["report.md"]
    assert links(written[0]) == []


def test_several_runs_share_a_table_and_keep_their_pictures_apart(
    folder, tmp_path, results, save
):
    other = save(tmp_path / "b", {**results("moco"), "name": "second/run (v2)"})
    written = write_report([folder, other], tmp_path / "out", against=None)
    assert set(links(written[0])) == {path.name for path in written[1:]}
    assert len(written) == 4
    assert all(path.parent == tmp_path / "out" for path in written)
    page = written[0].read_text()
    assert "demo: deacl" in page
    assert "second/run (v2): moco" in page


def test_runs_of_one_name_and_no_runs_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="two runs are named demo"):
        write_report([folder, folder], tmp_path / "out", against=None)
    with pytest.raises(UserError, match="no run"):
        write_report([], tmp_path / "out", against=None)
    assert not (tmp_path / "out").exists()


def test_where_nothing_was_attacked_nothing_is_said_of_attacks(tmp_path, results, save):
    bare = results("simclr", "moco")
    for arm in bare["arms"].values():
        arm["components"] = {"clean": arm["components"]["clean"]}
        arm |= {"worst": arm["components"]["clean"], "curve": []}
    page, *_ = write_report([save(tmp_path / "a", bare)], tmp_path / "b", against=None)
    assert "| method | backbone | clean | minutes |" in page.read_text()
    assert "worst" not in page.read_text()
    assert "attack" not in page.read_text()
