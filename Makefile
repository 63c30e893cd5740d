# The commands of the house. Each one sets up what it needs and starts in seconds the second time.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help tour lab test lint format types bench bench-gpu growth results soak oracles formats architectures pins wheel clean

BIN := .venv/bin
GPU_PYTHON ?= python3
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
SETUP := pyproject.toml constraints.txt hatch_build.py
STATIC := src/innerview/widgets/static
FRONT_SOURCES := $(shell find js -type f 2>/dev/null) package.json package-lock.json tsconfig.json
# Jupyter refuses root, which is whom a container runs as, unless told.
AS_ROOT := $(shell [ "$$(id -u)" != 0 ] || echo --allow-root)
TOUR := notebooks/tutorials/01_first_light.ipynb

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 10

tour: build/tour.html ## run the first tutorial and write it as one page that needs no network
	@printf '\n%s\n%s\n' \
	  "The tour is a page: open file://$(CURDIR)/build/tour.html in a browser, and put the mouse on it." \
	  "Next: make lab opens the same notebook with a live model behind it; move the sliders there."

lab: .venv/.run build/lab/01_first_light.ipynb ## open JupyterLab on the first tutorial
	$(BIN)/jupyter lab $(AS_ROOT) --notebook-dir=build/lab build/lab/01_first_light.ipynb $(LAB_OPTIONS)

test: .venv/.dev node_modules/.package-lock.json lint types ## everything: lint, types, vitest, pytest, notebooks, browser
	npm test
	@scripts/find_chromium.sh
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

lint: .venv/.dev ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.dev ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/.dev node_modules/.package-lock.json ## pyright and tsc
	$(BIN)/pyright
	npm run types

bench: .venv/.dev ## the rows of the performance table that exist
	$(BIN)/python -m benchmarks.run $(BENCH_OPTIONS)

bench-gpu: ## the rows that a GPU runs, in a Python whose torch has CUDA (GPU_PYTHON=...)
	PYTHONPATH=src:. $(GPU_PYTHON) -m benchmarks.gpu.run $(BENCH_OPTIONS)

growth: .venv/.dev ## how the cost of rows 1, 4 and 14 grows with tokens and features (long)
	PYTHONPATH=src:. .venv-bench/bin/python -m benchmarks.growth $(GROWTH_OPTIONS)

results: .venv/.dev ## docs/performance.md and its plots, from what was measured
	$(BIN)/python -m benchmarks.results_page

soak: .venv/.dev ## the reliability rows at their full counts (hours)
	$(BIN)/python -m tests.soak $(SOAK_OPTIONS)

oracles: | .venv-bench ## the same random weights in TransformerLens, nnsight and interp-engine: sites, heads, patterns
	PYTHONPATH=src:. OMP_NUM_THREADS=1 .venv-bench/bin/python -m pytest -o addopts=--import-mode=importlib -o timeout= -q tests/oracles

formats: | .venv-formats ## codes of published dictionaries in the publishers' own packages
	PYTHONPATH=src:. OMP_NUM_THREADS=1 .venv-formats/bin/python -m pytest -o addopts=--import-mode=importlib -o timeout= -q tests/oracles/test_dictionary_formats.py

architectures: .venv/.dev ## open every language model that transformers can build, and write docs/architectures.md
	$(BIN)/python -m tests.models.architectures

pins: .venv/.dev ## write constraints.txt from what is installed
	$(BIN)/python scripts/pins.py > build/constraints.txt && mv build/constraints.txt constraints.txt

wheel: .venv/.dev ## the wheel and the sdist, in dist/
	$(BIN)/python -m build --no-isolation --outdir dist .

clean: ## remove what was built; the second time starts from nothing
	rm -rf .venv node_modules build dist $(STATIC)

build/tour.html: .venv/.run $(STATIC)/.built $(TOUR) $(shell find src -name '*.py' 2>/dev/null)
	@mkdir -p build
	$(BIN)/innerview page $(TOUR) --execute --output $@

# Lab works on a copy: a notebook that was run would leave the tree dirty. A changed tutorial replaces
# the copy, and what was written in the old one is kept beside it.
build/lab/01_first_light.ipynb: $(TOUR)
	@mkdir -p $(@D)
	@if [ -e $@ ]; then mv $@ $(@D)/01_first_light_before.ipynb; fi
	cp $< $@

.venv/.made:
	@python=$$(scripts/find_python.sh) && echo "making .venv with $$python" && "$$python" -m venv .venv
	@touch $@

.venv/.run: .venv/.made $(SETUP) | $(STATIC)/.built
	@echo "installing innerview and what it stands on (the first time takes some minutes)"
	$(PIP) pip hatchling
	$(PIP) --no-build-isolation --editable '.[lab,export]'
	@touch $@

.venv/.dev: .venv/.run
	@echo "installing the tools of the tests"
	$(PIP) --group dev
	@touch $@

# Other libraries live in an environment of their own: they are no part of this one, and pin what they stand on.
.venv-bench:
	@python=$$(scripts/find_python.sh) && echo "making .venv-bench with $$python" && "$$python" -m venv $@
	$@/bin/python -m pip --disable-pip-version-check install --quiet . --requirement benchmarks/requirements.txt pytest

# Publishers exclude one another, so theirs are installed without what they ask for, and innerview is read from here.
.venv-formats:
	@python=$$(scripts/find_python.sh) && echo "making .venv-formats with $$python" && "$$python" -m venv $@
	$@/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt --requirement benchmarks/requirements-formats.txt
	$@/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --requirement benchmarks/requirements-publishers.txt

node_modules/.package-lock.json: package.json package-lock.json
	@scripts/find_node.sh
	npm ci --no-audit --no-fund
	@touch $@

$(STATIC)/.built: node_modules/.package-lock.json $(FRONT_SOURCES)
	npm run build
	@touch $@
