"""One training stage on one worker: plain configuration to a model on disk."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from rrl_dist.core.collectives import barrier, rank, world_size
from rrl_dist.core.errors import UserError
from rrl_dist.data.datasets import DataSource, ImageSet
from rrl_dist.data.loader import Loader, open_loader
from rrl_dist.data.prepare import beton_of, stored_as
from rrl_dist.models.artefact import save_artefact
from rrl_dist.models.encoder import Classifier, DeepClassifier
from rrl_dist.objectives.objective import Frozen, Objective
from rrl_dist.training.agreed import load_agreed
from rrl_dist.training.breakdown import Breakdown
from rrl_dist.training.build import (
    build,
    build_encoder,
    build_objective,
    build_optimizer,
    head_of,
    load_encoder,
    load_teacher,
)
from rrl_dist.training.checkpoint_writer import open_writer
from rrl_dist.training.feature_shards import FeatureLoader, features_of, shards_of
from rrl_dist.training.journal import Journal
from rrl_dist.training.length import Length, run_length
from rrl_dist.training.loop import Trainer
from rrl_dist.training.micro_batch import hold_in_parts
from rrl_dist.training.node_data import check_here
from rrl_dist.training.online_probe import open_probe
from rrl_dist.training.projector import kept_projector
from rrl_dist.training.wishes import Request, Wishes

Config = Mapping[str, Any]


def train_stage(
    stage: Config,
    folder: Path,
    *,
    device: torch.device,
    after_epoch: Callable[[int], None],
    notify: Callable[[str], None],
    wishes: Wishes | None = None,
) -> None:
    """Train, and leave `model.safetensors`, metrics and checkpoints in `folder`.

    Args:
        stage: plain configuration: `name` of the run, `seed`, `identity` (hash of all
            that the result depends on), `data`, `split`, `model`, `objective`, `views`,
            `optim`, `train`, `strategy`, `probe` (or None), `loader`, `betons` (a
            folder or None), `threads`, `teacher` and `init` (folders of models or
            None), and of a head on an encoder `protocol`, its name, `head`,
            `batch_norm` and `cache_features`; on a cluster `expected`, see
            `node_data.expected`.
        folder: the run directory.
        device: of this worker.
        after_epoch: called on all workers after each epoch.
        notify: told single lines.
        wishes: asked between steps whether to end before the end; None: nobody wishes
            that.

    Raises:
        UserError: for mistakes in the configuration.
        TrainingDivergedError: naming step and term.
        StoppedError, LeftError: having been asked to; the same call goes on.
    """
    torch.set_num_threads(int(stage["threads"]))
    source: DataSource = build(stage["data"])
    images = source.split(stage["split"])
    objective, model, origin = _objective(stage, source, device)
    if objective.needs_labels and int(images.labels.min()) < 0:
        raise UserError(f"{images.name} has images without labels; set split=train")
    hold_in_parts(objective, stage["train"]["micro_batch"])
    trainer, state = _trainer(stage, folder, source, images, objective, device, notify)
    try:
        first_step = trainer.restore(state)
        del state  # as large as the model and its optimizer
        trainer.run(first_step, after_epoch, wishes or Request())
    finally:
        trainer.checkpoints.close()
        trainer.loader.close()
        trainer.journal.close()
    with trainer.strategy.gathered():
        if rank() == 0:
            if stage.get("cache_features"):
                shards_of(stage, folder, images).remove()
            about = _described(stage, objective) | origin
            _keep(folder, stage, objective, model, source.class_names, about)
    barrier()
    trainer.strategy.close()


def _keep(
    folder: Path,
    stage: Config,
    objective: Objective,
    model: dict[str, Any],
    classes: tuple[str, ...],
    about: dict[str, Any],
) -> None:
    trained = objective.trained()
    save_artefact(
        folder,
        trained,
        model=model,
        classes=classes if isinstance(trained, Classifier | DeepClassifier) else (),
        training=about,
        projector=kept_projector(objective, stage["objective"]),
        head=dict(stage["head"]) if isinstance(trained, DeepClassifier) else None,
    )


def _objective(
    stage: Config, source: DataSource, device: torch.device
) -> tuple[Objective, dict[str, Any], dict[str, Any]]:
    """The method on its device, its encoder's configuration, and what that had been
    trained with before."""
    seed = int(stage["seed"])
    if stage["init"] is not None:
        encoder, artefact = load_encoder(Path(stage["init"]))
        model = artefact.model
        origin = {"encoder": {"sha256": artefact.sha256, **artefact.training}}
    else:
        model, origin = dict(stage["model"]), {}
        encoder = build_encoder(model, seed=seed)
    teacher = None
    if stage["teacher"] is not None:
        teacher = load_teacher(Path(stage["teacher"])).to(device)
    objective = build_objective(
        stage["objective"],
        encoder=encoder,
        teacher=teacher,
        num_classes=source.num_classes,
        image_size=build(stage["views"]).size(source.size),
        seed=seed,
        **head_of(stage),
    )
    return objective.to(device).train(), model, origin


def _trainer(
    stage: Config,
    folder: Path,
    source: DataSource,
    images: ImageSet,
    objective: Objective,
    device: torch.device,
    notify: Callable[[str], None],
) -> tuple[Trainer, dict[str, Any] | None]:
    """The parts of the run, and the state to restore."""
    optim = stage["optim"]
    length = run_length(stage["train"], stage["probe"], len(images), world_size())
    strategy = build(stage["strategy"], clip_grad=optim["clip_grad"])
    settings, name = stage["train"]["checkpoints"], str(stage["name"])
    checkpoints = open_writer(settings, folder, name, notify)
    if rank() == 0:
        checkpoints.recover()
    state = load_agreed(checkpoints.checkpoints, device)
    start = 0 if state is None else int(state["step"])
    trainer = Trainer(
        objective=objective,
        strategy=strategy,
        optimizer=build_optimizer(optim, objective),
        schedule=build(optim["schedule"]),
        peak_lr=peak_lr(optim, length.batch_size),
        loader=_opened(stage, folder, images, objective, length, device, notify),
        views=build(stage["views"]),
        length=length,
        journal=Journal(
            folder,
            writes=rank() == 0,
            start=start,
            breakdown=Breakdown(device, measures=bool(stage["train"]["breakdown"])),
        ),
        checkpoints=checkpoints,
        probe=checkpoints.noting(
            open_probe(stage, source, objective.encoder, strategy, device)
        ),
        device=device,
        seed=int(stage["seed"]),
        identity=str(stage["identity"]),
    )
    return trainer, state


def _opened(
    stage: Config,
    folder: Path,
    images: ImageSet,
    objective: Objective,
    length: Length,
    device: torch.device,
    notify: Callable[[str], None],
) -> Loader:
    """What batches are read from: images, or features that are computed first."""
    share = length.batch_size // world_size()
    if not stage.get("cache_features"):
        return _loader(stage, images, share, notify)
    check_here(images, None, stage.get("expected"))
    shards = shards_of(stage, folder, images)
    features = features_of(shards, objective.encoder, device, notify)
    return FeatureLoader(features, images, batch_size=share)


def _loader(
    stage: Config, images: ImageSet, share: int, notify: Callable[[str], None]
) -> Loader:
    betons = stage["betons"]
    beton = None if betons is None else beton_of(Path(betons), images)
    check_here(images, beton, stage.get("expected"))
    loader = open_loader(
        kind=stage["loader"],
        images=images,
        beton=beton,
        batch_size=share,
        # Raw images are copied faster than any step consumes them; a second thread
        # would take a core from the training.
        workers=int(stage["threads"]) if stored_as(images) == "jpg" else 1,
        notify=notify,
    )
    # FFCV sets torch's thread count for the whole process, and 1 against 2 threads
    # changes losses.
    torch.set_num_threads(int(stage["threads"]))
    return loader


def peak_lr(optim: Config, batch_size: int) -> float:
    """The highest learning rate: scaled linearly with the batch if `lr_per` is set."""
    per = optim["lr_per"]
    return float(optim["lr"]) * (1.0 if per is None else batch_size / float(per))


def _described(stage: Config, objective: Objective) -> dict[str, Any]:
    """What a model file says about its training: settings, and its teacher's hash."""
    keys = ("seed", "data", "objective", "views", "optim", "train", "strategy")
    described = {key: stage[key] for key in keys}
    # The folder says where the images were, not what they were.
    described["data"] = {k: v for k, v in stage["data"].items() if k != "root"}
    described["train"] = {k: v for k, v in stage["train"].items() if k != "checkpoints"}
    if "protocol" in stage:
        described["protocol"] = stage["protocol"]
    teacher = getattr(objective, "teacher", None)
    if isinstance(teacher, Frozen):
        described["teacher_sha256"] = teacher.sha256
    return described
