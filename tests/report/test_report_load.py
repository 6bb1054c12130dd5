import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json, write_json
from rrl_dist.report.load import load_run


def test_a_run_holds_what_its_files_say(tmp_path, results, save):
    written = results("simclr", "deacl")
    run = load_run(save(tmp_path, written))
    # results.json has its keys sorted.
    assert [arm.name for arm in run.arms] == ["deacl", "simclr"]
    assert (run.eps, run.norm, run.seeds) == (0.05, "linf", 1)
    for arm in run.arms:
        entry = written["arms"][arm.name]
        assert arm.worst.as_dict() == entry["worst"]
        read = {key: value.as_dict() for key, value in arm.components.items()}
        assert read == entry["components"]
        curve = [{"eps": p.eps, **p.accuracy.as_dict()} for p in arm.curve]
        assert curve == entry["curve"]


def test_minutes_come_from_the_arms_and_may_lack(tmp_path, results, save):
    run = load_run(save(tmp_path, results("simclr", "deacl")))
    assert {arm.name: arm.minutes for arm in run.arms} == {"simclr": 1.5, "deacl": None}


@pytest.mark.parametrize("schema", [0, 4, "1", None])
def test_another_schema_is_refused(tmp_path, results, save, schema):
    folder = save(tmp_path, {**results("simclr"), "schema": schema})
    with pytest.raises(UserError, match="schema"):
        load_run(folder)


@pytest.mark.parametrize("name", ["results.json", "cost.json"])
def test_a_missing_file_is_named_with_its_mend(tmp_path, results, save, name):
    folder = save(tmp_path, results("simclr"))
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"no {name} in .*rrl run") as error:
        load_run(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_a_damaged_file_is_refused(tmp_path, results, save, content):
    folder = save(tmp_path, results("simclr"))
    (folder / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json"):
        load_run(folder)


def remove(results, key):
    del results[key]


def remove_from_arm(results, key):
    del results["arms"]["simclr"][key]


def swap_ends(results, key):
    entry = results["arms"]["simclr"][key]
    entry["low"], entry["high"] = entry["high"], entry["low"]


def empty(results, key):
    results[key] = {}


@pytest.mark.parametrize(
    ("damage", "key", "told"),
    [
        (remove, "eps", "eps"),
        (remove, "arms", "arms"),
        (empty, "arms", "no arms"),
        (remove_from_arm, "worst", "worst"),
        (remove_from_arm, "components", "components"),
        (swap_ends, "worst", "no share"),
    ],
)
def test_an_odd_entry_is_told_in_one_line(tmp_path, results, save, damage, key, told):
    folder = save(tmp_path, results("simclr"))
    written = read_json(folder / "results.json")
    damage(written, key)
    write_json(folder / "results.json", written)
    with pytest.raises(UserError, match=told) as error:
        load_run(folder)
    assert "\n" not in str(error.value)
