"""Borrowing a model without leaving a trace on it."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every submodule has the mode it had before.

    `model.train()` afterwards would also switch on what the caller had switched off.
    """
    before = [(m, m.training) for model in models for m in model.modules()]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def frozen(*models: nn.Module) -> Iterator[None]:
    """No parameter requires a gradient inside: backward passes skip their share."""
    before = [(p, p.requires_grad) for model in models for p in model.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)
