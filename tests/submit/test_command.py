"""What a job is to run, looked at before it is sent."""

import shlex

import pytest
from omegaconf import OmegaConf

from rrl_dist.cli.submit import submit
from rrl_dist.core.errors import UserError
from rrl_dist.submit.command import entry, fitted, prepared
from tests.composing import compose

SHARED = ["storage=/shared/runs", "betons=/shared/betons"]
RUN = ["run", "experiment=demo", *SHARED]


def fit(words: list[str], *, uploaded: bool = True) -> list[str]:
    name, *settings = [word for word in words if not word.startswith("-")]
    composed = OmegaConf.create(compose(name, *settings))
    return fitted(words, composed, uploaded=uploaded)


def test_the_cluster_is_that_of_the_job() -> None:
    assert fit([*RUN, "--plan"]) == [*RUN, "cluster=auto", "--plan"]
    assert fit([*RUN, "cluster=auto"]) == [*RUN, "cluster=auto"]
    report = ["report", "runs=[demo]", "storage=/shared/runs"]
    assert fit(report) == report


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*RUN, "cluster=local"], "cluster=local would keep to one machine"),
        (["run", "experiment=demo"], "set a folder that all nodes share, such as st"),
        ([*RUN, "betons=data/betons"], "betons=data/betons would lie in the job's own"),
        ([*RUN, "data=cifar10"], "data.root=data/cifar10 would lie in the job's own"),
        (["report", "runs=[demo]"], "storage=runs would lie in the job's own folder"),
    ],
)
def test_what_would_be_lost_is_refused_in_one_line(words: list[str], told: str) -> None:
    with pytest.raises(UserError) as refused:
        fit(words)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "words",
    [
        [*RUN, "data=cifar10", "data.root=/shared/cifar10"],
        ["pretrain", "data=digits", "loader=memory", "storage=/shared/runs"],
    ],
)
def test_a_folder_that_is_not_the_jobs_is_taken(words: list[str]) -> None:
    assert fit(words) == [*words, "cluster=auto"]


def test_in_the_heads_own_folder_paths_may_be_relative() -> None:
    words = ["run", "experiment=demo"]
    assert fit(words, uploaded=False) == [*words, "cluster=auto"]


def test_the_command_itself_looks_for_mistakes() -> None:
    with pytest.raises(UserError) as refused:
        prepared(["run", "experiment=demo", "cluster.worker=2"], uploaded=True)
    told = "rrl run: there is no setting cluster.worker; the nearest is cluster.workers"
    assert str(refused.value) == told


def test_what_it_composes_is_looked_at() -> None:
    report = ["report", "demo", "storage=/shared/runs"]
    assert prepared(report, uploaded=True) == (report, "report")
    words, name = prepared([*RUN, "name=mine"], uploaded=True)
    assert (words, name) == ([*RUN, "name=mine", "cluster=auto"], "mine")


def test_words_without_settings_go_as_they_are() -> None:
    words = ["tune", "show", "mine", "storage=/shared/runs"]
    assert prepared(words, uploaded=True) == (words, "tune")


def test_no_word_means_anything_to_the_shell() -> None:
    words = ["run", "name=a b", "arms={x: $HOME}", "suite.curve=[1,2]; rm -rf /"]
    line = entry("python", words)
    assert shlex.split(line) == ["python", "-m", "rrl_dist.cli.main", *words]


@pytest.mark.parametrize(
    ("words", "variables", "told"),
    [
        ([], {}, "nothing is no command to submit; choose rrl submit run|"),
        (["walk"], {}, "walk is no command to submit"),
        (["submit", "run"], {}, "submit is no command to submit"),
        (["logs"], {}, "write rrl submit logs JOB, after any settings"),
        (["jobs", "x"], {}, "write rrl submit jobs, after"),
        (RUN, {"RAY_AUTH_TOKEN": "x"}, "RAY_AUTH_TOKEN: a job's nodes have it"),
    ],
)
def test_other_words_are_refused_in_one_line(
    words: list[str], variables: dict[str, str], told: str
) -> None:
    with pytest.raises(UserError) as refused:
        submit(compose("submit"), variables, words)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
