"""What DeACL's options do and refuse, one by one."""

from typing import Any

import pytest
import torch
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.objectives.deacl import _CHOICES, DeACL
from rrl_dist.objectives.distances import DISTANCES
from rrl_dist.objectives.objective import Frozen
from rrl_dist.training.build import build_objective
from tests.composing import compose
from tests.objectives.distilling import distilling, given_batch, paper
from tests.objectives.harness import small_encoder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "both"}, r"objective\.target=both; choose teacher\|student"),
        ({"defend": "x"}, r"objective\.defend=x; choose student\|teacher"),
        ({"passes": "two"}, r"objective\.passes=two; choose joint\|separate"),
        ({"teacher_sees": "all"}, r"teacher_sees=all; choose view\|second\|image"),
        ({"batch_norm": "two"}, r"batch_norm=two; choose shared\|clean\|adversarial"),
        ({"batch_norm": "clean"}, r"passes=joint; set objective\.passes=separate"),
        ({"attack_precision": "fp16"}, r"precision=fp16; choose step\|fp32"),
        ({"distance": "l1"}, "no distance=l1; choose"),
        ({"cache_teacher": True}, r"sees a view.*set objective\.teacher_sees=image"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        distilling(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", ["clean", "adversarial"])
def test_each_kind_of_images_moves_its_own_batch_norms(kept: str) -> None:
    """The encoder keeps one kind's; its names and what is saved of it stay."""
    objective = distilling(passes="separate", batch_norm=kept)
    assert objective.branch is not None
    assert objective.encoder.state_dict().keys() == small_encoder(1).state_dict().keys()
    batch = objective.inner(given_batch())
    with torch.no_grad():  # the attacked images of one kind alone are moved
        batch.extras["x_adv"].zero_()
    first = objective.encoder.get_submodule("backbone.layers.1")
    other = objective.branch.norms[0]
    before = [norm.running_mean.clone() for norm in (first, other)]
    objective(batch)["loss"].backward()
    means = dict.fromkeys(("clean", "adversarial"), Tensor())
    means[kept] = first.running_mean - 0.9 * before[0]
    means["adversarial" if kept == "clean" else "clean"] = (
        other.running_mean - 0.9 * before[1]
    )
    conv = objective.encoder.get_submodule("backbone.layers.0")
    with torch.no_grad():
        for kind, x in (("clean", batch.views[0]), ("adversarial", 0 * batch.views[0])):
            seen = conv(objective.encoder.normalize(x)).mean((0, 2, 3))
            torch.testing.assert_close(means[kind], 0.1 * seen, rtol=1e-4, atol=1e-5)
    assert all(p.grad is not None for p in objective.parameters())


def test_a_teacher_without_a_projector_is_refused_where_one_is_wanted() -> None:
    parts: dict[str, Any] = {
        "encoder": small_encoder(1),
        "teacher": Frozen(small_encoder(3), sha256="teacher"),
        "num_classes": 3,
        "image_size": 8,
        "seed": 0,
    }
    with pytest.raises(UserError, match=r"without one; .* objective\.projector=false"):
        build_objective({**paper(), "projector": True}, **parts)
    build_objective(paper(), **parts)


def test_every_alternative_is_measured_in_an_arm() -> None:
    experiments = ("deacl_ablations_digits", "deacl_precision_digits")
    arms = [
        arm["objective"]
        for name in experiments
        for arm in compose("run", f"experiment={name}")["arms"].values()
    ]
    target = f"{DeACL.__module__}.{DeACL.__name__}"
    measured = [arm for arm in arms if arm["_target_"] == target]
    flags = [key for key, value in paper().items() if isinstance(value, bool)]
    alternatives = {
        **_CHOICES,
        "distance": tuple(DISTANCES),
        **dict.fromkeys(flags, (False, True)),
    }
    words = {key for key, value in paper().items() if isinstance(value, str)}
    assert words - {"_target_"} <= alternatives.keys(), "an option without its choices"
    for option, values in alternatives.items():
        assert {arm[option] for arm in measured} == set(values), option
    ends = [arm["ramp"]["end"] for arm in measured]
    assert min(ends) == 0 < max(ends)
