"""Finished runs as tables and pictures; no accuracy is computed here."""
