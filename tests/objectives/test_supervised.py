import torch
import torch.nn.functional as F

from rrl_dist.models.encoder import Classifier
from tests.objectives.harness import own_batch, small_objective


def test_loss_is_the_cross_entropy_of_what_is_kept() -> None:
    objective = small_objective("supervised").eval()
    batch = own_batch("supervised")
    logits = objective.trained()(batch.views[0])
    expected = F.cross_entropy(logits, batch.labels)
    torch.testing.assert_close(objective(batch)["loss"], expected)
    assert isinstance(objective.trained(), Classifier)
