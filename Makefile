# make demo: see a language model learn.  make test: check everything.  Both set up .venv by themselves.
PYTHON ?= python3
BIN := .venv/bin

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "torch>=2.11,<=2.13.0"
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

.PHONY: demo test test-slow lint docs
demo: .venv/ready
	$(BIN)/posttrain train grpo --policy smollm2-135m --task addition --kl-coef 0 --prompts 16 --samples 4 --lr 4e-5 --steps 64

# On every core, four at most: each worker holds a torch of its own.
test: .venv/ready
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

test-slow: .venv/ready
	$(BIN)/python -m pytest -m slow

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/mypy

# The documentation, a page for every method file, into site/; any warning fails.  python3 -m http.server -d site shows it.
docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
