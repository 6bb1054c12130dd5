"""Evaluation of any module on any data set, as a call in Python."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from torch import nn

from rrl_dist import __version__
from rrl_dist.attacks.balls import Ball
from rrl_dist.core.errors import UserError
from rrl_dist.core.lease import held
from rrl_dist.core.run_directory import environment, locked
from rrl_dist.core.storage import value_hash
from rrl_dist.core.store import Store, open_store
from rrl_dist.evaluate.corruption_files import absolute_suite, check_files
from rrl_dist.evaluate.evaluation import Evaluation
from rrl_dist.evaluate.images import Items, chosen_images, given_images
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.evaluate.rehearsal import check_suite, rehearse_module, some_images
from rrl_dist.evaluate.settings import (
    check_address,
    check_settings,
    check_workers,
)
from rrl_dist.evaluate.status import Status
from rrl_dist.evaluate.subject import Models, state_hash
from rrl_dist.evaluate.suites import suite_config
from rrl_dist.evaluate.surrogates import suite_identity
from rrl_dist.models.encoder import Classifier
from rrl_dist.training.cluster import joined, session


def evaluate(
    model: nn.Module,
    dataset: Items,
    *,
    ball: Ball,
    out: str | Path,
    suite: str | Mapping[str, Any] = "autoattack",
    workers: int = 0,
    threads: int | None = None,
    gpu: bool | str = "auto",
    seed: int = 0,
    limit: int | None = None,
    classes: int | None = None,
    stop_when: str | None = None,
    stop_every: int = 256,
    unit_seconds: float = 30.0,
    keep_images: bool = False,
    verdict: bool | str = "auto",
    verdict_images: int = 64,
    watch: Callable[[Status], None] | None = None,
) -> dict[str, Any]:
    """Attack a classifier, shared out over workers; the same call goes on after a stop.

    Args:
        model: [N, 3, H, W] in [0, 1] -> logits [N, K]; it normalizes inside, and is
            given back as it was.
        dataset: items (image, label), the image a [3, H, W] tensor in [0, 1]. It is
            read once from end to end, and sample by sample by those who attack.
        ball: the threat model, such as `Linf(8 / 255)`.
        out: a folder, or the address of one in an object store, such as
            "s3://bucket/run"; receives rows and results.
        suite: a name of configs/suite, such as "autoattack", or a configuration.
        workers: Ray actors, in the session there is or on this machine; 0 for this
            process, without Ray.
        threads: of each worker; None for the cores, shared out.
        gpu: whether workers get a GPU each; "auto" where there are any.
        seed: of all draws.
        limit: how many samples to attack, a fixed random part; None for all.
        classes: how many there are; None for one more than the largest label.
        stop_when: a rule that ends it early, such as "half_width<0.01" or
            "below 0.40 with 95 %"; see `rrl_dist.core.stopping`.
        stop_every: samples between two looks at that.
        unit_seconds: that a worker's unit of work should take.
        keep_images: whether attacked images are kept, under `out`/images.
        verdict: whether to tell if the attacks were led astray; "auto" where that adds
            at most a fifth to the suite's passes. See docs/verdict.md.
        verdict_images: how many images are measured for it.
        watch: told how far it is after each unit.

    Returns:
        what `out`/results.json holds; docs/evaluation.md tells what that is.

    Raises:
        UserError: a number is out of range; the model, its answers or the images are
            not usable; `out` holds another evaluation, is in use or is no address; or
            the suite is none.
    """
    asked = {
        "limit": limit,
        "stop_when": stop_when,
        "stop_every": stop_every,
        "unit_seconds": unit_seconds,
        "verdict": verdict,
        "verdict_images": verdict_images,
    }
    check_settings(asked)
    check_workers(workers, threads)
    check_address("out", out)
    config = absolute_suite(suite_config(suite))
    threat = ball_config(ball)
    images = given_images(dataset, classes=classes)
    job: dict[str, Any] = {
        **asked,
        "images": images,
        "suite": config,
        "ball": threat,
        "seed": seed,
        "threads": threads or max((os.cpu_count() or 1) // max(workers, 1), 1),
        "has_encoder": isinstance(model, Classifier),
        "gallery": 0,
        "keep_images": keep_images,
    }
    name = type(model).__name__
    _check_suite(name, job)
    check_files(config, images, None, "test")
    job["fingerprint"] = {
        "code": __version__,
        "weights": value_hash([type(model).__qualname__, state_hash(model)]),
        "images": images.fingerprint,
        "suite": suite_identity(config, {}),
        **{key: job[key] for key in ("limit", "ball", "seed")},
    }
    rehearse_module(name, model, some_images(chosen_images(job)))
    store = open_store(out)
    cluster = {
        "kind": "local" if workers else "debug",
        "workers": max(workers, 1),
        "threads": job["threads"],
        "gpu": gpu,
        "max_failures": 3,
    }
    with _sole(store) as generation, _session(cluster) as where:
        store.write_json("environment.json", environment())
        evaluation = Evaluation(
            job,
            store,
            where,
            models=lambda: Models(deepcopy(model).cpu().eval(), {}),
            generation=generation,
        )
        return evaluation.run(watch or _unseen, _unseen)


def ball_config(ball: Ball) -> dict[str, Any]:
    """What `build` makes a threat model of."""
    if not is_dataclass(ball):
        raise UserError(f"ball={ball!r}; give a threat model, such as Linf(8 / 255)")
    values = {field.name: getattr(ball, field.name) for field in fields(ball)}
    kind = type(ball)
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **values}


def _check_suite(name: str, job: Mapping[str, Any]) -> None:
    """Raises `UserError` for a suite that needs more than a model and test images."""
    if "surrogates" in job["suite"]:
        raise UserError(
            "suite.surrogates names models on disk, which rrl evaluate reads; from "
            "Python call rrl_dist.attacks.transfer_matrix"
        )
    suite = build_suite(job["suite"], job["ball"], seed=0)
    if suite.estimation is not None:
        raise UserError(
            "suite.vulnerability is fitted on training images, which rrl evaluate "
            "reads; choose a suite without it, such as suite=autoattack"
        )
    check_suite(name, suite, has_encoder=job["has_encoder"])


def _unseen(_: object) -> None:
    """Nobody watches."""


@contextmanager
def _sole(store: Store) -> Iterator[int]:
    """Hold a store alone; yields the generation of the lease.

    Raises:
        UserError: another process works there.
    """
    if "://" not in store.address:
        with locked(Path(store.address)):
            yield 0
        return
    with held(store) as lease:
        yield lease.generation
        lease.check()


@contextmanager
def _session(cluster: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The Ray session that there is, or one of this machine's own."""
    if cluster["kind"] != "debug":
        import ray

        if ray.is_initialized():
            yield joined(cluster)
            return
    with session(cluster) as where:
        yield where
