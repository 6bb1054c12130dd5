"""Sweeps: search of settings by robust accuracy."""
