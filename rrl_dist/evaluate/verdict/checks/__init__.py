"""One check of the verdict a file: its `check` is given the evidence, and tells what it
has found, or None where that cannot be told."""
