"""Honest measurement: attacks in shards, rows first, averages last."""

from rrl_dist.evaluate.calls import evaluate

__all__ = ["evaluate"]
