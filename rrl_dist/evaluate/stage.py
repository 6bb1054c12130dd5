"""The evaluation stage of an experiment: what it is told, and when it is done."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rrl_dist.core.display import Display
from rrl_dist.core.lease import held
from rrl_dist.core.run_directory import StageFolder
from rrl_dist.core.storage import read_json, write_json
from rrl_dist.core.store import Store, open_store
from rrl_dist.evaluate.evaluation import Evaluation
from rrl_dist.evaluate.source import Source
from rrl_dist.evaluate.surrogates import load_models

JOB = "job.json"
# What an evaluation is asked for that its rows do not depend on.
_ASKED = (
    *("gallery", "stop_when", "stop_every", "keep_images", "rows"),
    *("verdict", "verdict_images"),
)
Config = Mapping[str, Any]


def is_done(folder: StageFolder, settings: Config) -> bool:
    """Whether a stage has ended, and was asked for the same.

    Args:
        folder: the stage's.
        settings: `evaluate` of an experiment's configuration.
    """
    job = folder.path / JOB
    if not folder.done or not job.is_file():
        return False
    return bool(read_json(job)["asked"] == _asked(settings))


def _asked(settings: Config) -> dict[str, Any]:
    return {key: settings.get(key) for key in _ASKED}


def run_stage(
    config: Config,
    folder: StageFolder,
    *,
    data: Config,
    source: Source,
    surrogates: Mapping[str, Source],
    cluster: Callable[[], Config],
    display: Display,
) -> None:
    """Do what is missing of an evaluation, and leave `results.json` in its folder.

    Args:
        config: an experiment's: `suite`, `ball`, `seed`, `cluster`, `evaluate`, `name`.
        folder: the stage's; its settings are the evaluation's fingerprint.
        data: of the classifier's part of the data.
        source: the classifier.
        surrogates: by name, classifiers that attacks are made on as well.
        cluster: starts it, when it is needed.
        display: what a person sees.

    Raises:
        UserError: see `Evaluation.run`.
    """
    own = config["evaluate"]
    job = {
        **{key: config[key] for key in ("suite", "ball", "seed")},
        "data": dict(data),
        "split": own["split"],
        "limit": own["limit"],
        "threads": int(config["cluster"]["threads"]),
        "has_encoder": source.has_encoder,
    }
    named = {**own, **job, "surrogates": surrogates, "fingerprint": folder.settings}
    watch, where = display.attacking(), cluster()

    def evaluate(store: Store, generation: int) -> dict[str, Any]:
        evaluation = Evaluation(
            named,
            store,
            where,
            models=lambda: load_models(source, surrogates),
            generation=generation,
        )
        return evaluation.run(watch, display.notify)

    with folder.attempt():
        write_json(folder.path / JOB, record(job, source, surrogates, own))
        if own.get("rows") is None:  # the command holds the run's folder
            results = evaluate(open_store(folder.path), 0)
        else:
            name = f"{config['name']}/{folder.path.name}"
            store = store_below(str(own["rows"]), name)
            with held(store) as lease:
                results = evaluate(store, lease.generation)
                lease.check()
        write_json(folder.path / "results.json", results)


def store_below(address: str, name: str) -> Store:
    """The store of a name in a folder or bucket, whose address may end with options."""
    body, mark, options = address.partition("?")
    return open_store(f"{body.rstrip('/')}/{name}{mark}{options}")


def record(
    job: Config, source: Source, surrogates: Mapping[str, Source], settings: Config
) -> dict[str, Any]:
    """A job as JSON, for whoever attacks its samples again."""
    return {
        **job,
        "classifier": asdict(source),
        "surrogates": {name: asdict(other) for name, other in surrogates.items()},
        "asked": _asked(settings),
    }


def restored(fields: Config) -> Source:
    """A `Source` of its JSON."""
    lists = {key: fields[key] and tuple(fields[key]) for key in ("mean", "std")}
    return Source(**{**fields, **lists})


def picture_of(folder: StageFolder, settings: Config) -> Path:
    """Where the stage's gallery is, if it has one in its own folder."""
    return folder.path / f"gallery-{settings['gallery']}.npz"
