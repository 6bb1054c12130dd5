"""AutoAttack on a network whose outcome under the authors' code is on record.

256 images of CIFAR-10 and an adversarially trained network, beside the checkout and not
in it; without them these tests skip.
"""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from rrl_dist.attacks import Details, Linf, autoattack

SHARED = Path(__file__).parents[3] / "shared" / "data"
ABOUT = SHARED / "fixtures" / "cnn_at.json"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ABOUT.exists(), reason=f"no fixture at {SHARED}"),
]


class Normalized(nn.Module):
    """[0, 1] images to the network's own scale."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.48) / 0.25


def network() -> nn.Module:
    plan = [(3, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
    layers: list[nn.Module] = []
    for channels, out, stride in plan:
        conv = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(out), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)]
    body = nn.Sequential(*layers)
    body.load_state_dict(load_file(ABOUT.with_name("cnn_at.safetensors")))
    return nn.Sequential(Normalized(), body).eval()


@pytest.fixture(scope="module")
def about() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ABOUT.read_text())
    return found


@pytest.fixture(scope="module")
def images(about: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """[256, 3, 32, 32] in [0, 1], and their labels."""
    files = [sample["file"] for sample in about["samples"]]
    pixels: dict[str, Tensor] = {}
    with tarfile.open(SHARED / "cifar10-images.tar.gz") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            handle = tar.extractfile(member) if name in files else None
            if handle is not None:
                image = np.array(Image.open(io.BytesIO(handle.read())))
                pixels[name] = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    classes = about["architecture"]["classes"]
    labels = [classes.index(file.split("/")[1]) for file in files]
    return torch.stack([pixels[file] for file in files]), torch.tensor(labels)


@pytest.fixture(scope="module")
def found(images: tuple[Tensor, Tensor]) -> Details:
    ball = Linf(8 / 255)
    return autoattack(network(), *images, ball=ball, batch_size=64, details=True)


def test_clean_answers_are_those_on_record(
    about: dict[str, Any], found: Details
) -> None:
    clean = torch.tensor([bool(sample["clean"]) for sample in about["samples"]])
    assert torch.equal(~found.stages[0].wrong, clean)


def test_no_component_leaves_more_than_one_image_more(
    about: dict[str, Any], found: Details
) -> None:
    right = ~found.stages[0].wrong
    for stage in found.stages[1:]:
        right = right & ~stage.wrong
        official = round(256 * about["robust_accuracy_after"][stage.name])
        print(stage.name, int(right.sum()), "right, official", official)
        assert int(right.sum()) <= official + 1
    assert torch.equal(right, found.robust)


def test_samples_that_differ_are_few(about: dict[str, Any], found: Details) -> None:
    robust = torch.tensor([bool(sample["robust"]) for sample in about["samples"]])
    differing = (robust != found.robust).nonzero()[:, 0].tolist()
    print("differing", [about["samples"][i]["file"] for i in differing])
    assert len(differing) <= 2
