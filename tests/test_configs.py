"""Every YAML of configs/ composes and builds, and what it builds works.

Files are found by listing the folders, so a new one is tested without a word here.
"""

from pathlib import Path

import pytest
import torch
from hydra.errors import HydraException
from torch import nn

from rrl_dist.cli.app import CONFIGS
from rrl_dist.cli.bench import BENCHES
from rrl_dist.cli.main import COMMANDS
from rrl_dist.core.errors import UserError
from rrl_dist.data.datasets import DataSource
from rrl_dist.data.sources import SOURCES
from rrl_dist.data.views import Views
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.judges import check_protocol, judges_of
from rrl_dist.models.encoder import Classifier
from rrl_dist.stages import pretrain_stage, probe_stage
from rrl_dist.tasks import Part
from rrl_dist.training.build import build, build_encoder
from rrl_dist.training.cluster import session
from rrl_dist.training.length import run_length
from rrl_dist.training.lineage import ordered
from rrl_dist.training.probe import Probe
from rrl_dist.training.schedule import Schedule
from rrl_dist.training.stage import peak_lr
from tests.composing import (
    GROUPS,
    TINY,
    chosen,
    compose,
    every,
    names,
    one_step,
    random_batch,
    random_images,
    steps,
    tiny_encoder,
    tiny_model,
    views_of,
)
from tests.gloo import run_workers
from tests.longer import covering

COMPOSED = {*COMMANDS, *BENCHES.values()}
LARGE = 1_000_000  # parameters; a tiny model takes the steps of a larger one
IMAGES = 50_000


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_every_group_is_tested() -> None:
    folders = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    assert folders == set(GROUPS)
    assert all(names(group) for group in GROUPS)


def test_every_command_has_its_configuration() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == COMPOSED


@pytest.mark.parametrize("command", sorted(COMPOSED))
def test_every_command_composes_and_refuses_an_unknown_key(command: str) -> None:
    compose(command)
    with pytest.raises(HydraException, match="unknown_key"):
        compose(command, "unknown_key=1")


@pytest.mark.parametrize("part", ["objective", "model", "data", "ball", "views"])
def test_a_key_forced_in_is_refused_by_the_constructor(part: str) -> None:
    config = compose("pretrain", f"+{part}.unknown_key=1")[part]
    with pytest.raises((UserError, TypeError), match="unknown_key"):
        build(config)


@every("data")
def test_data(name: str) -> None:
    source = build(chosen("data", name)["data"])
    assert isinstance(source, DataSource)
    assert source.name in SOURCES
    assert source.size > 0
    assert 0 < source.val_fraction < 1
    for channel in (source.mean, source.std):
        assert len(channel) == 3
        assert all(0 < value < 1 for value in channel)


@every("views")
def test_views(name: str) -> None:
    views: Views = build(chosen("views", name)["views"])
    batch = random_batch(views, 32)
    assert len(batch.views) == len(views) >= 1
    for view in batch.views:
        assert view.shape == batch.images.shape
        assert float(view.min()) >= 0
        assert float(view.max()) <= 1


@every("model")
def test_model(name: str) -> None:
    config = chosen("model", name)["model"]
    with torch.device("meta"):  # shapes, without memory or time
        encoder = build_encoder(config, seed=0)
        assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, encoder.num_features)
    if parameters(encoder) < LARGE:
        x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        h = build_encoder(config, seed=0)(x)
        assert bool(h.isfinite().all())
        assert not torch.equal(h[0], h[1])


@every("objective")
def test_objective(name: str) -> None:
    config = chosen("objective", name, f"views={views_of(name)}", "optim=sgd")
    steps({**config, "teacher": "any"}, model=tiny_model(), size=16)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "strategy"),
    covering(names("objective"), [s for s in names("strategy") if s != "single"]),
)
def test_objective_under_every_strategy(name: str, strategy: str) -> None:
    run_workers(2, one_step, name, strategy)


@every("optim")
def test_optim(name: str) -> None:
    config = chosen("optim", name, "objective=supervised", "views=none")
    schedule: Schedule = build(config["optim"]["schedule"])
    peak = peak_lr(config["optim"], 128)
    rates = [schedule(i / 10, epochs=10.0, peak=peak) for i in range(100)]
    assert 0 < max(rates) <= peak * (1 + 1e-9)
    assert min(rates) >= 0
    steps({**config, "teacher": None}, model=tiny_model(), size=16)


@every("strategy")
def test_strategy(name: str) -> None:
    config = chosen("strategy", name, "objective=supervised", "views=none", "optim=sgd")
    steps({**config, "teacher": None}, model=tiny_model(), size=16)


@every("probe")
def test_probe(name: str) -> None:
    config = dict(chosen("probe", name)["probe"])
    if config.pop("every_epochs") == 0:
        assert name == "none"
        assert not config, "a probe that never runs needs no settings"
        return
    attack = build({**config.pop("attack"), "micro_batch": 8}, seed=0)
    train, val = random_images(24, 8), random_images(8, 8)
    probe = Probe(train=train, val=val, num_classes=3, attack=attack, **config)
    found = probe(tiny_encoder(), torch.device("cpu"))
    assert 0 <= found["robust_acc"] <= found["linear_acc"] <= 1
    assert 0 <= found["knn_acc"] <= 1


TRAIN_KEYS = {
    "epochs",
    "max_steps",
    "batch_size",
    "micro_batch",
    "log_every",
    "breakdown",
    "checkpoint_every",
    "checkpoints",
}


@every("train")
def test_train(name: str) -> None:
    train = chosen("train", name)["train"]
    assert train.keys() == TRAIN_KEYS
    length = run_length(train, None, IMAGES, 1)
    assert length.steps > 0
    assert length.log_every > 0
    assert length.checkpoint_every > 0


@every("cluster")
def test_cluster(name: str) -> None:
    config = chosen("cluster", name)["cluster"]
    assert config["workers"] >= 1
    assert config["threads"] >= 1
    assert config["gpu"] in (True, False, "auto")
    if config["kind"] == "debug":
        with session(config) as found:
            assert found["gpu"] == torch.cuda.is_available()
    else:
        assert config["kind"] in ("local", "auto")
        assert config["max_failures"] >= 0


@every("head")
def test_head(name: str) -> None:
    config = chosen("head", name)
    stage = probe_stage(config, Path("nowhere"))
    h = torch.rand(4, 6)
    assert build(stage["head"], in_features=6, num_classes=3)(h).shape == (4, 3)


@every("protocol")
def test_protocol(name: str) -> None:
    config = chosen("protocol", name)
    check_protocol(config["protocol"], "protocol")
    stage = probe_stage(config, Path("nowhere"))
    run_length(stage["train"], None, IMAGES, 1)
    objective = steps(stage, model=tiny_model())
    assert isinstance(objective.trained(), Classifier)


@pytest.mark.parametrize("preset", [None, *names("preset")])
@every("experiment")
def test_experiment(name: str, preset: str | None) -> None:
    overrides = [] if preset is None else [f"preset={preset}"]
    config = chosen("experiment", name, *overrides)
    assert config["name"] == name
    build_suite(config["suite"], config["ball"], seed=0)
    model = config["model"]
    with torch.device("meta"):
        if parameters(build_encoder(model, seed=0)) >= LARGE:
            model = compose("pretrain", *TINY)["model"]
    whole = Part(None, config["data"])
    judges = judges_of(config, [whole])
    stages = [judge.stage(config, Path("nowhere")) for judge in judges]
    for arm in ordered(config["arms"]):
        teacher = config["arms"][arm]["teacher"]
        known = None if teacher is None else Path("nowhere")
        stages.append(pretrain_stage(config, arm, known))
    for stage in stages:
        run_length(stage["train"], stage["probe"], IMAGES, 1)
        build(stage["optim"]["schedule"])
        steps(stage, model=model)


PAPERS = ("worst_case_mi_cifar10", "urrl_cifar10", "acl_cifar10")


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
def test_a_papers_experiment_takes_two_steps_with_its_own_network(name: str) -> None:
    config = chosen("experiment", name)
    for arm in ordered(config["arms"]):
        steps(pretrain_stage(config, arm, None), model=config["model"])


PAIRS = [
    ("urrl_cifar10", "simclr", "urrl"),
    ("acl_cifar10", "simclr", "acl"),
    ("compare_digits", "simclr_crops", "urrl"),
    ("compare_digits", "mi", "worst_case_mi"),
    ("compare_digits", "acl_off", "acl"),
    ("compare_digits", "rocl_off", "rocl"),
    ("compare_digits", "simclr", "tarrl"),
    ("compare_digits", "simclr", "spectral"),
]


@pytest.mark.parametrize(("name", "off", "on"), PAIRS)
def test_on_and_off_differ_in_the_term_alone(name: str, off: str, on: str) -> None:
    """A method around another is off without it; one with a weight at weight 0; RoCL is
    then SimCLR with RoCL's head, since at weight 0 it attacks all the same."""
    arms = chosen("experiment", name)["arms"]
    for part in ("views", "optim", "train", "teacher"):
        assert arms[off][part] == arms[on][part], part
    inside = arms[on]["objective"].get("base")
    mine, theirs = (dict(arms[arm]["objective"]) for arm in (on, off))
    if inside is not None:
        assert inside == theirs
    elif mine["_target_"] == theirs["_target_"]:
        assert mine.pop("weight") > theirs.pop("weight") == 0
        assert mine == theirs
    else:
        assert theirs["_target_"].endswith("SimCLR")
        assert {key: mine[key] for key in theirs if key != "_target_"} == {
            key: value for key, value in theirs.items() if key != "_target_"
        }
