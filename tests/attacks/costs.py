"""What AutoAttack's components cost, next to their authors' code.

    python -m tests.attacks.costs docs/attacks.md [IMAGES] [ROUNDS]

The network is a small CNN for 32 x 32 colour images, untrained, and the ball is so
small that no image is ever broken: each component does all of its work, the case that
costs most. Both codes take turns on the same images and threads; times are the least
of the rounds.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from rrl_dist.attacks import Linf
from rrl_dist.attacks.passes import counted
from rrl_dist.attacks.versions import AutoAttack

BALL = Linf(1e-5)
THREADS = 2
START, END = "<!-- costs -->", "<!-- /costs -->"
Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def network() -> nn.Module:
    """[N, 3, 32, 32] -> [N, 10], in eval mode."""
    plan = [(3, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
    layers: list[nn.Module] = []
    for channels, out, stride in plan:
        conv = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(out), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(*layers)
        for layer in model:
            if not isinstance(layer, (nn.ReLU, nn.Flatten, nn.BatchNorm2d)):
                for weight in layer.parameters():
                    nn.init.normal_(weight, std=2 / weight[0].numel() ** 0.5)
        model.train()(torch.rand(64, 3, 32, 32))
    return model.eval()


def ours(name: str) -> Attack:
    """A component of the standard version."""
    version = AutoAttack(version="standard", ball=BALL, seed=0, micro_batch=32)
    (found,) = (attack for attack in version.attacks if attack.name == name)
    return found


def theirs(name: str) -> Attack:
    """The same, as the authors' `AutoAttack` sets it up."""
    settings: dict[str, Any] = {"norm": "Linf", "eps": BALL.eps, "seed": 0}
    kinds: dict[str, Callable[[nn.Module], Any]] = {
        "apgd-ce": lambda m: APGDAttack(m, n_iter=100, loss="ce", **settings),
        "apgd-t": lambda m: APGDAttack_targeted(m, n_iter=100, **settings),
        "fab-t": lambda m: FABAttack_PT(m, n_iter=100, targeted=True, **settings),
        "square": lambda m: SquareAttack(
            m, n_queries=5000, resc_schedule=False, **settings
        ),
    }

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        made = kinds[name](model)
        made.n_target_classes = 9
        attacked: Tensor = made.perturb(x.clone(), y.clone())
        return attacked

    return attack


def cost(attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Images that went through the model and back over those given, and seconds."""
    with counted(model) as passes:
        begin = time.perf_counter()
        attack(model, x, y)
        seconds = time.perf_counter() - begin
    count = len(x)
    return {
        "forward": passes.forward / count,
        "backward": passes.backward / count,
        "seconds": seconds,
    }


def compare(images: int, rounds: int) -> dict[str, Any]:
    """Both codes' costs by component."""
    torch.set_num_threads(THREADS)
    model = network()
    x = torch.rand(images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(1)
    found: dict[str, Any] = {}
    for name in ("apgd-ce", "apgd-t", "fab-t", "square"):
        runs = [
            {who.__name__: cost(who(name), model, x, y) for who in (ours, theirs)}
            for _ in range(rounds)
        ]
        found[name] = {
            who: min((run[who] for run in runs), key=lambda one: one["seconds"])
            for who in ("ours", "theirs")
        }
        print(name, found[name], flush=True)
    total = {
        who: sum(found[name][who]["seconds"] for name in found)
        for who in ("ours", "theirs")
    }
    return {
        "threads": THREADS,
        "images": images,
        "rounds": rounds,
        "components": found,
        "ratio": total["ours"] / total["theirs"],
    }


def table(found: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [
        "| attack | forward, ours | theirs | backward, ours | theirs | time, ratio |",
        "| :-- | --: | --: | --: | --: | --: |",
    ]
    for name, both in found["components"].items():
        mine, other = both["ours"], both["theirs"]
        passes = [
            f"{x[way]:,.0f}" for way in ("forward", "backward") for x in (mine, other)
        ]
        ratio = mine["seconds"] / other["seconds"]
        lines.append(f"| {name} | {' | '.join(passes)} | {ratio:.2f} |")
    told = (
        f"Passes of the model for each of {found['images']} images of 32 x 32 that "
        "nothing breaks, fillings included, and the ratio of times on "
        f"{found['threads']} CPU threads in float32, least of {found['rounds']} in "
        "turn (`python -m tests.attacks.costs`); all together "
        f"**{found['ratio']:.2f}**."
    )
    return "\n".join([told, "", *lines])


def write(page: Path, text: str) -> None:
    """Between the page's marks."""
    before, _, rest = page.read_text().partition(START)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{START}\n{text}\n{END}{after}")


if __name__ == "__main__":
    file, *sizes = sys.argv[1:]
    numbers = compare(*(int(size) for size in sizes or ("32", "3")))
    write(Path(file), table(numbers))
