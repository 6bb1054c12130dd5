import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rrl_dist.core.errors import UserError
from rrl_dist.models.backbones import SmallCNN, timm_backbone
from rrl_dist.models.encoder import Encoder
from rrl_dist.models.heads import Projector
from rrl_dist.models.sync_bn import SyncBatchNorm, convert_sync_bn
from tests.gloo import run_workers
from tests.models.workers import CASES, in_bf16, two_steps

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
PER_SAMPLE = ("y", "x", "eval")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_equals_batch_norm_of_the_global_batch(name: str, workers: int) -> None:
    expected = two_steps(name, double=True)
    found = run_workers(workers, two_steps, name)
    # At a mean of 300 float32 itself has three digits less.
    rough = 1e-3 if name == "large mean" else 2e-5
    for key, value in expected.items():
        if key in PER_SAMPLE:
            dim = 0 if key == "eval" else 1
            whole = torch.cat([each[key] for each in found], dim=dim)
        elif key in BUFFERS:
            whole = found[0][key]
            assert all(torch.equal(each[key], whole) for each in found)
        else:
            whole = torch.stack([each[key] for each in found]).sum(0)
        torch.testing.assert_close(
            whole.double(), value.double(), rtol=rough, atol=rough, msg=f"{name} {key}"
        )


@pytest.mark.slow
def test_low_precision_comes_back_and_is_not_what_sums_are_made_in() -> None:
    for y, reference, dtype in run_workers(2, in_bf16):
        assert dtype == torch.bfloat16
        torch.testing.assert_close(y, reference, rtol=2**-8, atol=2**-8)


@pytest.mark.parametrize("training", [True, False])
def test_alone_it_is_torchs_to_the_last_bit(training: bool) -> None:
    x = CASES["maps"].tensors()[0][0]
    norm, sync = CASES["maps"].norm(), convert_sync_bn(CASES["maps"].norm())
    norm.train(training)
    sync.train(training)
    assert torch.equal(sync(x), norm(x))
    for name, buffer in norm.named_buffers():
        assert torch.equal(dict(sync.named_buffers())[name], buffer), name


def test_refuses_an_input_without_channels() -> None:
    with pytest.raises(ValueError, match=r"\[N, C"):
        SyncBatchNorm(3)(torch.rand(3))


def test_conversion_keeps_names_tensors_and_modes() -> None:
    model = nn.Sequential(
        SmallCNN(width=4),
        Projector(16, hidden=8, out=4, layers=3, sync_bn=False),
        nn.BatchNorm1d(4, eps=0.1, momentum=0.3),
    )
    model[0].layers[1].eval()
    model[0].layers[1].weight.requires_grad_(False)
    before = {k: v.data_ptr() for k, v in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    modes = [m.training for m in model.modules()]
    converted = convert_sync_bn(model)
    assert converted is model
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert len(norms) == 8
    assert all(type(m) is SyncBatchNorm for m in norms)
    assert {k: v.data_ptr() for k, v in model.state_dict().items()} == before
    assert list(model.state_dict()) == list(before)
    for name, parameter in model.named_parameters():
        assert parameter is parameters[name]
    assert [m.training for m in model.modules()] == modes
    assert (model[2].eps, model[2].momentum) == (0.1, 0.3)


def test_a_state_dict_goes_both_ways() -> None:
    plain, sync = SmallCNN(width=2), convert_sync_bn(SmallCNN(width=2))
    sync.load_state_dict(plain.state_dict(), strict=True)
    plain.load_state_dict(sync.state_dict(), strict=True)


@pytest.mark.parametrize(
    "name", ["resnet18", "wide_resnet50_2", "mobilenetv3_small_050"]
)
def test_an_encoder_with_sync_bn_has_no_other_batch_norm(name: str) -> None:
    """Or it is refused: some of timm's norms are kinds of their own."""
    with torch.device("meta"):
        backbone = timm_backbone(
            name=name, stem="imagenet", image_size=None, patch_size=None
        )
    try:
        encoder = Encoder(
            backbone=backbone, mean=[0.5] * 3, std=[1.0] * 3, sync_bn=True
        )
    except UserError:
        return
    norms = [m for m in encoder.modules() if isinstance(m, _BatchNorm)]
    assert norms
    assert [type(m).__name__ for m in norms if not isinstance(m, SyncBatchNorm)] == []


def test_without_sync_bn_nothing_is_converted() -> None:
    encoder = Encoder(
        backbone=SmallCNN(width=2), mean=[0.5] * 3, std=[1.0] * 3, sync_bn=False
    )
    assert not any(isinstance(m, SyncBatchNorm) for m in encoder.modules())
