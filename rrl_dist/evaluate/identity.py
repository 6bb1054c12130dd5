"""What an evaluation's result depends on, and whether it has enough images."""

from collections.abc import Mapping
from typing import Any

from rrl_dist import __version__
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.evaluate.source import Source
from rrl_dist.evaluate.surrogates import suite_identity

Config = Mapping[str, Any]


def evaluation_identity(
    config: Config,
    *,
    weights: str,
    images: Mapping[str, str],
    surrogates: Mapping[str, Source],
) -> dict[str, Any]:
    """All that rows and estimates depend on.

    Args:
        config: an experiment's.
        weights: sha256 of the classifier.
        images: fingerprints by split, among them the one that `evaluate.split` names;
            critics are fitted on "train".
        surrogates: by name, classifiers that attacks are made on as well.
    """
    suite = suite_identity(config["suite"], surrogates)
    fitted = {"fitted": images["train"]} if "vulnerability" in suite else {}
    return {
        "code": __version__,
        "weights": weights,
        "images": images[config["evaluate"]["split"]],
        **fitted,
        "limit": config["evaluate"]["limit"],
        "suite": suite,
        **{key: config[key] for key in ("ball", "seed")},
    }


def tested_splits(suite: Config, split: str) -> tuple[str, ...]:
    """The splits that a suite reads of a classifier that is there already: the critics
    of the vulnerability are fitted on training images."""
    fitted = suite.get("vulnerability") is not None
    return (split, "train") if fitted else (split,)


def check_counts(config: Config, images: Mapping[str, int]) -> list[str]:
    """Hold what a suite measures against how many images there are.

    Args:
        config: an experiment's.
        images: counts by split.

    Returns:
        what a person should know, a line each.

    Raises:
        UserError: a batch of critics is larger than a split.
    """
    suite = build_suite(config["suite"], config["ball"], seed=0)
    if suite.estimation is None:
        return []
    limit, test = config["evaluate"]["limit"], images[config["evaluate"]["split"]]
    attacked = test if limit is None else min(int(limit), test)
    return suite.estimation.check_images(train=images["train"], test=attacked)
