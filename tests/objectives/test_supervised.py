import torch
import torch.nn.functional as F

from rrl_dist.models.encoder import Classifier
from rrl_dist.objectives.supervised import Supervised
from tests.objectives.harness import own_batch, small_encoder, small_objective


def test_loss_is_the_cross_entropy_of_what_is_kept() -> None:
    objective = small_objective("supervised").eval()
    batch = own_batch("supervised")
    logits = objective.trained()(batch.views[0])
    expected = F.cross_entropy(logits, batch.labels)
    torch.testing.assert_close(objective(batch)["loss"], expected)
    assert isinstance(objective.trained(), Classifier)


def test_a_frozen_encoder_keeps_its_weights_and_its_statistics() -> None:
    encoder = small_encoder(1)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    objective = Supervised(encoder=encoder, num_classes=3, train_encoder=False).train()
    trained = [p for p in objective.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in objective.head.parameters()}
    optimizer = torch.optim.SGD(trained, lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        objective(own_batch("supervised"))["loss"].backward()
        optimizer.step()
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert float(objective.head.weight.grad.abs().max()) > 0
