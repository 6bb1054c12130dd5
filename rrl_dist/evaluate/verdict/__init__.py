"""Whether attacks were led astray by a classifier: pass, suspect or fail."""
