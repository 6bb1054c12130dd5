"""One loop, run alone or by Ray Train."""
