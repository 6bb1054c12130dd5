# Tests run in two processes, a file at a time: its fixtures are set up once. In their
# own order, since by their number the longest (few, with Ray) would come last.
# make demo    the main job on scikit-learn's digits, two CPU cores, minutes
# make check   format, types, imports, fast tests: before each commit
# make test    check, and the tests with real Ray, FFCV and gloo processes
# make soak    what shows the same again at length: more pairs, images, seeds and kills
.PHONY: demo check test soak lint

pytest := .venv/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

demo:
	@docker/install.sh
	.venv/bin/python -m rrl_dist.cli.main run experiment=demo

lint:
	@docker/install.sh dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

check: lint
	$(pytest) -m "not slow and not long"

test: lint
	$(pytest) -m "not long" --durations=40 --durations-min=10

soak: lint
	$(pytest) -m long
