"""Backbones, encoders, heads."""
