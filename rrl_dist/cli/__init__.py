"""One thin file a command; Hydra is read here and goes no further."""

import os

# Before torch is imported: OpenMP threads that spin long while they wait take the core
# from whoever they wait for. docs/decisions.md has the figures.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
