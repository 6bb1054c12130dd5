"""What a sweep comes to: its best settings, as experiments for `rrl run`, and trained
again with other seeds and attacked on test images, once."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from rrl_dist.core.display import Display
from rrl_dist.core.errors import UserError
from rrl_dist.core.run_directory import open_run
from rrl_dist.core.storage import read_json, write_bytes, write_json
from rrl_dist.experiment import Experiment
from rrl_dist.tune.record import Record, best, front
from rrl_dist.tune.search import Sweep
from rrl_dist.tune.setting import OF_ARM

Config = Mapping[str, Any]
ANSWER, BEST = "answer", "best"
# What `rrl run` has too, in the order in which it is written.
_OF_RUN = (
    *("data", "model", "ball", "suite", "protocol", "probe", "strategy", "cluster"),
    *("loader", "seed", "teacher"),
)
_GROUPS = ("data", "model", "ball", "strategy", "cluster", "protocol", "probe")
_SUITE = "suite@sweep.answer.suite"


def chosen(sweep: Sweep, records: Sequence[Record]) -> list[Record]:
    """The settings that are the answer: the best one, or of two aims the front, from
    the best by the first aim on; at most `answer.most`."""
    maximize = [aim.maximize for aim in sweep.aims.aims]
    first = best(records, maximize)
    if first is None:
        return []
    if len(maximize) == 1:
        return [first]
    up = maximize[0]
    others = sorted(
        front(records, maximize), key=lambda r: r.values[0], reverse=bool(up)
    )
    return others[: int(sweep.settings["answer"]["most"])]


def arm_of(record: Record) -> str:
    """Its name in experiments of the answer."""
    return f"trial-{record.number:04d}"


def answer_config(
    sweep: Sweep, records: Sequence[Record], *, seed: int, name: str
) -> dict[str, Any]:
    """A run of some settings and of the arms that teach them, on test images.

    Args:
        sweep: that found them.
        records: of trials that agree in all settings which are not of the arm.
        seed: of the run.
        name: of the run.
    """
    arms = {teacher: sweep.config["arms"][teacher] for teacher in sweep.teachers}
    nearest = sweep.teachers[0] if sweep.teachers else None
    whole = sweep.base
    for record in records:
        whole = sweep.space.apply(sweep.base, record.settings, sweep.variants)
        own = {key: whole[key] for key in OF_ARM} | {"teacher": nearest}
        arms[arm_of(record)] = own
    rest = {key: value for key, value in whole.items() if key not in OF_ARM}
    return {
        **rest,
        "name": name,
        "seed": seed,
        "arms": arms,
        **{"tasks": None, "protocols": None, "head_seeds": None},
        "suite": sweep.settings["answer"]["suite"],
        "evaluate": {
            **whole["evaluate"],
            **{"split": "test", "gallery": 8, "verdict": "auto"},
        },
    }


def write_experiment(sweep: Sweep, record: Record) -> Path:
    """The best setting as a file for `rrl run experiment=best --config-dir FOLDER`.

    Args:
        sweep: that found it.
        record: of its trial.
    """
    config = answer_config(
        sweep, [record], seed=int(sweep.config["seed"]), name=f"{sweep.name}-best"
    )
    groups = [{f"override /{key}": sweep.choices[key]} for key in _GROUPS]
    groups.append({"override /suite": sweep.choices[_SUITE]})
    kept = {key: config[key] for key in ("name", *_OF_RUN, "arms")}
    kept["data"] = {k: v for k, v in kept["data"].items() if k != "root"}
    folder = sweep.folder / ANSWER
    pairs = zip(sweep.aims.aims, record.values, strict=True)
    told = ", ".join(f"{aim.measure} {value:.4g}" for aim, value in pairs)
    head = (
        "# @package _global_\n"
        f"# command   rrl run experiment={BEST} --config-dir {folder}\n"
        f"# what      trial {record.number} of {sweep.name}: {told} on validation\n"
        "#           images. Values are written out: another ball= does not reach\n"
        "#           into the arms.\n"
    )
    body = OmegaConf.to_yaml(
        OmegaConf.create({"defaults": [*groups, "_self_"], **kept})
    )
    path = folder / "experiment" / f"{BEST}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (head + body).encode())
    return path


def retrain(
    sweep: Sweep,
    records: Sequence[Record],
    start: Callable[[], Config],
    display: Display,
) -> list[Path]:
    """Train settings again with seeds that no trial had, and attack them on test.

    Args:
        sweep: that found them.
        records: of their trials.
        start: starts the cluster, or returns the one that is there.
        display: what a person sees.

    Returns:
        folders of finished runs, a seed each; where the settings differ in more than
        their arms, one for each seed and setting.

    Raises:
        UserError: see `Experiment.run`.
    """
    count = int(sweep.settings["answer"]["seeds"])
    if count:
        _claim(sweep, records)
    first = int(sweep.config["seed"]) + 1
    found = []
    for seed in range(first, first + count):
        for group in _together(sweep, records):
            name = f"{sweep.name}-seed-{seed}"
            if len(group) < len(records):
                name += f"-{arm_of(group[0])}"
            folder = sweep.folder / ANSWER / "runs" / name
            config = answer_config(sweep, group, seed=seed, name=name)
            about = {"command": "rrl tune", "answer of": sweep.name}
            with ExitStack() as stack:
                text = OmegaConf.to_yaml(OmegaConf.create(config))
                stack.enter_context(open_run(folder, about, text))
                Experiment(config, folder, start, display).run()
            found.append(folder)
    return found


def _claim(sweep: Sweep, records: Sequence[Record]) -> None:
    """Note whom test images are read for, before they are.

    Raises:
        UserError: they were read for others.
    """
    file = sweep.folder / ANSWER / "answered.json"
    numbers = [record.number for record in records]
    if file.is_file():
        before = read_json(file)["trials"]
        if before != numbers:
            raise UserError(
                f"test images were read for trials {before} of {sweep.name}, and now "
                f"its answer is {numbers}; set sweep.answer.seeds=0, or begin another "
                "name= to read them again"
            )
    write_json(file, {"trials": numbers})


def _together(sweep: Sweep, records: Sequence[Record]) -> list[list[Record]]:
    """Settings that can be arms of one run."""
    keys = [dimension.key.split(".")[0] for dimension in sweep.space.dimensions]
    if all(key in OF_ARM for key in keys):
        return [list(records)] if records else []
    return [[record] for record in records]
