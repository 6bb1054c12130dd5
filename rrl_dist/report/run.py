"""What a report is about: a finished run, its arms, and what was measured of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rrl_dist.core.aggregate import Mean, Proportion


@dataclass(frozen=True)
class Point:
    """Accuracy at one attack size; `eps` is in [0, 1] pixels."""

    eps: float
    accuracy: Proportion


@dataclass(frozen=True)
class Level:
    """The bound on the adversarial loss at one attack size, all losses in nats.

    Attributes:
        eps: in [0, 1] pixels.
        clean_loss, loss: cross-entropy on clean images, and the worst one measured.
        head_norm: spectral norm of the linear head.
        displacement: R(f), how far attacks moved features.
        relative: R(f) over the features' spread; None where they have none.
        bound: clean_loss + sqrt(2) head_norm displacement.
    """

    eps: float
    clean_loss: Mean
    head_norm: float
    displacement: Mean
    relative: Mean | None
    bound: Mean
    loss: Mean


@dataclass(frozen=True)
class Distance:
    """Mean distance of images to the nearest wrong one that a search found.

    Attributes:
        norm: "l2".
        radius: the largest tried; images that were not broken count with it.
        mean: over all images; those wrong from the start count 0.
        censored: how many were not broken.
        attack: component that searched; None in results of earlier versions.
        median: likewise.
        curve: accuracy at each distance, by growing distance; empty likewise.
    """

    norm: str
    radius: float
    mean: Mean
    censored: int
    attack: str | None = None
    median: float | None = None
    curve: tuple["Point", ...] = ()


@dataclass(frozen=True)
class Representation:
    """Measures of an encoder on clean images.

    Attributes:
        feature_std: of unit features, mean over columns.
        effective_rank: of the centred features.
        sigma_squared_sum: over layers, of each one's largest singular value; None where
            a layer has no exact operator.
        largest_sigma: of all layers; None likewise.
    """

    feature_std: float
    effective_rank: float
    sigma_squared_sum: float | None
    largest_sigma: float | None


@dataclass(frozen=True)
class Vulnerability:
    """Representation vulnerability: what an attack takes from the mutual information of
    images and features, as an estimator tells it, in nats.

    Attributes:
        estimator: "dv", "nce" or "jsd".
        batch_size: N images, that it tells apart.
        log_batch_size: log N, near which estimates say little.
        normal, worst: mutual information of clean and of attacked images.
        difference: normal less worst, the vulnerability.
        risk: the adversarial risk that the worst case implies; an estimate, no bound.
        near_ceiling: whether `normal` is as high as such an estimate can be.
    """

    estimator: str
    batch_size: int
    log_batch_size: float
    normal: Mean
    worst: Mean
    difference: Mean
    risk: Mean
    near_ceiling: bool


@dataclass(frozen=True)
class Corruptions:
    """Errors on corrupted images, in [0, 1].

    Attributes:
        error: mean over kinds and severities.
        kinds: by kind, mean over severities.
        images: where they come from: "published", "regenerated" or "regenerated,
            synthetic frost".
        mce: mean over the fifteen kinds for testing at five severities; None where
            others were asked for.
        mce_imagenet: likewise, each kind's over AlexNet's; may be above 1.
        validation: mean over the kinds for validation; None where there are none.
    """

    error: Mean
    kinds: Mapping[str, Mean]
    images: str = "regenerated"
    mce: Mean | None = None
    mce_imagenet: Mean | None = None
    validation: Mean | None = None


@dataclass(frozen=True)
class CalibrationErrors:
    """Of some outputs, in [0, 1].

    Attributes:
        ece, rms: expected and root mean square calibration error.
        diagram: (mean confidence, share right, outputs) of each bin that has outputs.
    """

    ece: Mean
    rms: Mean
    diagram: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Calibration:
    """How far confidences are from the shares that are right.

    Attributes:
        binning: such as "15 equal-width bins".
        interval: how the intervals are made, in words.
        outputs: by kind: "clean", "worst" (attacked), and "corrupted" where measured.
    """

    binning: str
    interval: str
    outputs: Mapping[str, CalibrationErrors]


@dataclass(frozen=True)
class Step:
    """What is right after one of the attacks of a component, and those before it.

    Attributes:
        attack: its name, such as "apgd-ce"; "clean" for the images themselves.
        accuracy: share that none of them has broken.
    """

    attack: str
    accuracy: Proportion


@dataclass(frozen=True)
class Verdict:
    """Whether gradients misled the attacks.

    Attributes:
        level: "pass", "suspect" or "fail".
        against: by check of that level, what it has found, in words; of none that is
            ok.
        stronger: by the same, what to run.
    """

    level: str
    against: Mapping[str, str]
    stronger: Mapping[str, str]


@dataclass(frozen=True)
class Arm:
    """One classifier of a run, evaluated on one task.

    Attributes:
        name: its key in the run: the arm, or arm and task.
        objective, backbone, protocol: as configured: "deacl", "resnet18", "slf"; of a
            stranger's classifier no objective and no protocol.
        components: accuracy by component, such as "clean" or "pgd20-linf@0.05".
        worst: share of images that survive all components.
        curve: accuracy against attack size, by growing eps; may be empty.
        minutes: what the arm took, training and evaluation; None where not recorded.
        arm, task, head_seed: parts of the name; no task where the run has none, no seed
            where each head was trained with the run's alone.
        levels: the bound by growing eps; may be empty.
        distance, representation, vulnerability, corruptions: None where not measured.
        after: by component that is several attacks in turn, what each of them left
            right, in their order.
        verdict: None where there is none.
        calibration: None in results of earlier versions.
        data: the task's data set, where it is another than the run's.
    """

    name: str
    objective: str | None
    backbone: str
    protocol: str | None
    components: Mapping[str, Proportion]
    worst: Proportion
    curve: tuple[Point, ...]
    minutes: float | None
    arm: str
    task: str | None = None
    head_seed: int | None = None
    levels: tuple[Level, ...] = ()
    distance: Distance | None = None
    representation: Representation | None = None
    vulnerability: Vulnerability | None = None
    corruptions: Corruptions | None = None
    after: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    verdict: Verdict | None = None
    calibration: Calibration | None = None
    data: str | None = None

    @property
    def row(self) -> str:
        """Its name but for the head's seed: heads of one row differ in that alone."""
        return self.name.removesuffix(f"-head{self.head_seed}")


@dataclass(frozen=True)
class Run:
    """A finished run, as `results.json` and `cost.json` tell it.

    Attributes:
        name, data, split: the run's name, its data set, the split evaluated.
        seed, seeds: the training seed; how many seeds the numbers cover.
        norm, eps: threat model; "linf", "l2" or "l1", radius in [0, 1] pixels.
        curve_attack: attack of the curves, such as "pgd20"; None if not recorded.
        device: where it ran, in words; None where not recorded.
        arms: in the order of `arm_order`, in which the experiment ran them.
        tasks: the classes of each task, as they were given, none for all of another
            data set; empty without tasks.
        settings: what sets it apart from other runs, seed and folders aside, by dotted
            name; None where not recorded.
    """

    name: str
    data: str
    split: str
    seed: int
    seeds: int
    norm: str
    eps: float
    curve_attack: str | None
    device: str | None
    arms: tuple[Arm, ...]
    tasks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    settings: Mapping[str, Any] | None = None
