"""Modules that are not this project's, as text: they are written to a folder of their
own and imported from there."""

MODULE = "rrl_strangers"
TEXT = """
from pathlib import Path

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, side=32, classes=10):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(3 * side * side, classes)
        with torch.no_grad():
            nn.init.normal_(self.fc.weight, generator=generator)
            self.fc.bias.zero_()

    def forward(self, x):
        return self.fc(self.drop(self.norm(x)).flatten(1))


class Changed(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.net, self.change = Net().eval(), change

    def forward(self, x):
        return self.change(self.net(x))


def build():
    return Net().eval()


def training():
    return Net()


def probabilities():
    return Changed(lambda logits: logits.softmax(1))


def not_a_number():
    return Changed(lambda logits: logits * float("nan"))


def two_answers():
    return Changed(lambda logits: (logits, logits))


def thousand():
    return Net(classes=1000).eval()


def larger():
    return Net(side=64).eval()


def another_each_time():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))


def nothing():
    return None


def broken():
    raise KeyError("checkpoint")


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def known():
    from rrl_dist.training.build import load_classifier

    where = (Path(__file__).parent / "known.txt").read_text()
    return Wrapped(load_classifier(Path(where))[0]).eval()
"""
