"""What every part speaks: batches, collectives, randomness, rows, storage."""
