"""One kind of corruption a file: its `KIND` is found by the file's name."""
