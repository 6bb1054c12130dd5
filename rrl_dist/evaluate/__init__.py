"""Honest measurement: attacks in shards, rows first, averages last."""
