"""One sweep in its folder: teachers, then trials, in this process or on Ray."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rrl_dist.core.display import Display
from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.experiment import Experiment
from rrl_dist.training.length import run_length
from rrl_dist.tune.aims import Aims, parse_aims
from rrl_dist.tune.conductor import Conductor
from rrl_dist.tune.here import sweep_here
from rrl_dist.tune.measures import names_of
from rrl_dist.tune.record import Asked, Record
from rrl_dist.tune.rules import Rule
from rrl_dist.tune.setting import TRIAL, flat, run_of, teachers_of
from rrl_dist.tune.space import Space, Variants, parse_space
from rrl_dist.tune.stopping import rule_of
from rrl_dist.tune.stored import CHOICES
from rrl_dist.tune.study import Study
from rrl_dist.tune.trial import Trial

Config = Mapping[str, Any]
STUDY = "study.db"
# What a sweep's results do not depend on, so that a sweep may go on with others.
NOT_FROZEN = frozenset(("cluster", "storage", "betons", "loader", "name", "preset"))
# Of `sweep`, the same.
LATER = ("trials", "at_once", "study", "answer")


@dataclass(frozen=True)
class Sweep:
    """What is asked for.

    Attributes:
        config: plain configuration of a run, with `arms` if it is of an experiment, and
            `sweep`.
        arm: of the experiment; None where there is no experiment.
        variants: see `Space`.
        folder: of the sweep, held by the caller.
        choices: files of the configuration by group, kept for the answer's file.

    Raises:
        UserError: settings that cannot be, from any of the properties.
    """

    config: Config
    arm: str | None
    variants: Variants
    folder: Path
    choices: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def settings(self) -> Config:
        """Of the search itself."""
        return dict(self.config["sweep"])

    @cached_property
    def base(self) -> dict[str, Any]:
        """The run that trials change, flat."""
        found = flat(self.config, self.arm)
        return {key: found[key] for key in found if key not in ("sweep", "arm")}

    @cached_property
    def space(self) -> Space:
        """What is searched."""
        return parse_space(self.settings, self.base, self.variants)

    @cached_property
    def aims(self) -> Aims:
        """What settings are measured by."""
        return parse_aims(self.settings)

    @property
    def name(self) -> str:
        """Of the sweep."""
        return str(self.config["name"])

    @property
    def arm_name(self) -> str:
        """Of the arm that trials train."""
        return self.arm or TRIAL

    @property
    def frozen(self) -> dict[str, Any]:
        """All that the trials depend on, as it is kept with the study."""
        kept = {k: v for k, v in self.config.items() if k not in NOT_FROZEN}
        root = {**kept["data"], "root": None}
        sweep = {k: v for k, v in self.settings.items() if k not in LATER}
        return {
            **{**kept, "data": root, "sweep": sweep},
            "variants": dict(self.variants),
            CHOICES: dict(self.choices),
        }

    def trial(self, asked: Asked, teacher: Path | None) -> tuple[dict[str, Any], Path]:
        """A trial's configuration and folder."""
        setting = self.space.apply(self.base, asked.settings, self.variants)
        name = f"{self.name}-{asked.number:04d}"
        config = run_of(setting, self.arm_name, name=name, teacher=teacher)
        return config, self.folder / "trials" / f"{asked.number:04d}"

    @property
    def teachers(self) -> tuple[str, ...]:
        """Arms that the trials' arm learns from, its own teacher first."""
        return teachers_of(self.config, self.arm)

    def rehearsed(self) -> dict[str, Any]:
        """The run of the first start and of all that comes before it."""
        first = dict(self.space.starts[0]) if self.space.starts else {}
        config, _ = self.trial(Asked(0, first), None)
        own = config["arms"][self.arm_name]
        above = {name: self.config["arms"][name] for name in self.teachers}
        taught = {**own, "teacher": self.teachers[0] if above else None}
        arms = {**above, self.arm_name: taught}
        return {**config, "name": self.name, "arms": arms}

    def study(self) -> Study:
        """Opened, or begun.

        Raises:
            UserError: see `Study`.
        """
        settings = self.settings
        return Study(
            settings["study"] or self.folder / STUDY,
            self.name,
            maximize=[aim.maximize for aim in self.aims.aims],
            space=self.space,
            sampler=settings["sampler"],
            seed=int(self.config["seed"]),
            trials=int(settings["trials"]),
            frozen=self.frozen,
        )

    def check(self, classes: int) -> None:
        """Find mistakes that need no trial to be seen.

        Args:
            classes: of the data set.

        Raises:
            UserError: the first.
        """
        for key in ("trials", "at_once"):
            value = self.settings[key]
            if (value is not None or key == "trials") and int(value or 0) < 1:
                raise UserError(f"sweep.{key}={value}; set at least 1")
        if self.config.get("tasks") is not None:
            raise UserError(
                "a sweep measures on the whole data set; set tasks=null, or choose "
                "another experiment="
            )
        for key in ("protocols", "head_seeds"):
            if self.config.get(key) is not None:
                raise UserError(
                    f"a sweep measures by one protocol, with one head; set {key}=null"
                )
        self._check_answer()
        suite = build_suite(self.base["suite"], self.base["ball"], seed=0)
        self.aims.check_names(names_of(suite, classes=classes))

    def _check_answer(self) -> None:
        own = self.settings["answer"]
        for key, least in (("seeds", 0), ("most", 1)):
            if not isinstance(own[key], int) or own[key] < least:
                raise UserError(f"sweep.answer.{key}={own[key]}; set at least {least}")
        build_suite(own["suite"], self.base["ball"], seed=0)

    def rule(self, images: int) -> Rule:
        """What ends trials early.

        Args:
            images: that a trial trains on.
        """
        base, workers = self.base, int(self.base["cluster"]["workers"])
        probe = base["probe"]
        length = run_length(base["train"], probe, images, workers)
        return rule_of(
            self.settings,
            self.aims,
            probe_every=length.probe_every,
            steps=length.steps,
        )


def search(sweep: Sweep, start: Callable[[], Config], display: Display) -> list[Record]:
    """Run what is missing of a sweep; returns its trials.

    Args:
        sweep: what is asked for.
        start: starts the cluster, when it is needed, with room for `places` workers.
        display: what a person sees.

    Raises:
        UserError: a mistake, before a trial starts; or no trial goes well.
    """
    experiment = Experiment(
        sweep.rehearsed(), sweep.folder / "teachers", start, display
    )
    sweep.check(experiment.whole.source.num_classes)
    experiment.prepare()
    images = experiment.images[experiment.whole].counts[sweep.base["split"]]
    rule = sweep.rule(images)
    sweep.folder.mkdir(parents=True, exist_ok=True)
    study = sweep.study()  # frozen when all that can be checked is
    try:
        conductor = Conductor(study, rule, sweep.aims, display.notify)
        if conductor.waiting():
            cluster = experiment.cluster
            places = at_once(sweep.settings, cluster)
            teacher = train_teachers(sweep, experiment)
            _run(sweep, conductor, cluster, teacher, places)
        return study.trials()
    finally:
        study.close()


def _run(
    sweep: Sweep,
    conductor: Conductor,
    cluster: Config,
    teacher: Path | None,
    places: int,
) -> None:
    if cluster["kind"] == "debug":
        sweep_here(conductor, lambda asked: _begun(sweep, asked, teacher, cluster))
        return
    from rrl_dist.tune.sweep import sweep_on_ray  # and Ray Tune with it

    sweep_on_ray(
        conductor,
        lambda asked: sweep.trial(asked, teacher),
        sweep.folder,
        at_once=places,
        max_failures=int(cluster["max_failures"]),
    )


def at_once(settings: Config, cluster: Config) -> int:
    """Trials at a time: as asked for, or as many as there is room for; in this process
    one.

    Raises:
        UserError: there is no room for as many.
    """
    workers, asked = int(cluster["workers"]), settings["at_once"]
    if cluster["kind"] == "debug":
        return 1
    room = int(cluster["cpus"] // (cluster["cpus_per_worker"] * workers))
    if cluster["gpu"]:
        share = cluster.get("gpus_per_worker", 1)
        # A worker does not get two halves of different GPUs.
        fit = int(cluster["gpus"]) * int(1 / share) if share <= 1 else 0
        room = min(room, fit // workers)
    if room < 1 or (asked is not None and int(asked) > room):
        wanted = f"{asked} trials" if asked else "a trial"
        raise UserError(
            f"sweep.at_once={asked}: the cluster has {cluster['cpus']} CPUs and "
            f"{cluster['gpus']} GPUs, too few for {wanted} of {workers} workers; "
            f"lower {'sweep.at_once' if room else 'cluster.workers'}"
        )
    return room if asked is None else int(asked)


def _begun(sweep: Sweep, asked: Asked, teacher: Path | None, cluster: Config) -> Trial:
    config, folder = sweep.trial(asked, teacher)
    return Trial(config, folder, lambda: cluster)


def train_teachers(sweep: Sweep, experiment: Experiment) -> Path | None:
    """Train the arms that the trials' arm learns from; returns its own teacher."""
    arms, models = experiment.config["arms"], dict[str, Path]()
    for name in reversed(sweep.teachers):
        own = arms[name]["teacher"]
        models[name] = experiment.pretrain(name, models[own] if own else None)
    return models[sweep.teachers[0]] if models else None
