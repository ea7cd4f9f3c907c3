# Two commands need nothing but Python 3.11 or newer: `make compare` and `make test`. Each makes its environment first.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: accelerator compare docs package peers test test-accelerators test-optimized test-report test-durability test-notebook test-peers lint format clean

compare: .venv/study
	$(BIN)/python experiments/compare_norms.py $(ARGS)

# Installs nothing: a borrowed machine has its own packages.
accelerator:
	$(PYTHON) benchmarks/accelerator.py $(ARGS)

test: .venv/test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 $(ARGS)

test-report: .venv/test
	$(BIN)/python -m pytest -m browser tests/study/report $(ARGS)

test-durability: .venv/test
	JAXNORM_TEST_OPTIMIZED=1 $(BIN)/python -m pytest -m durability tests $(ARGS)

test-accelerators: .venv-accelerators
	JAXNORM_ACCELERATORS=.venv-accelerators/bin/python $(BIN)/python -m pytest -m accelerators tests/test_accelerators.py $(ARGS)

# The tests of precision and of the convolution again, and what needs programs that are compiled as a user's are.
test-optimized: .venv/test
	JAXNORM_TEST_OPTIMIZED=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 -m 'not peers' tests/norms/test_numerics.py tests/conv $(ARGS)
	JAXNORM_TEST_OPTIMIZED=1 $(BIN)/python -m pytest -m optimized tests/study/training $(ARGS)

test-peers: .venv/peers
	$(BIN)/python -m pytest -m peers tests $(ARGS)

# Rebuilds docs/peers.md.
peers: .venv/peers
	$(BIN)/python benchmarks/peers.py

# Builds the wheel and the archive of the sources, and tries both in environments of their own.
package: .venv/package
	rm -rf build dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m pytest -m package tests/test_package.py $(ARGS)

# Writes docs/_build/html/index.html. Its notebooks are executed, within minutes.
docs: .venv/docs
	$(BIN)/python -m sphinx -q -E -W --keep-going -b html docs docs/_build/html $(ARGS)

test-notebook: .venv/notebook
	$(BIN)/python -m pytest -m notebook tests/test_notebook.py $(ARGS)

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-accelerators build dist docs/_build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { found=`$(PYTHON) -V 2>/dev/null || echo not installed`; \
	    echo "error: jaxnorm needs Python 3.11 or newer, but $(PYTHON) is $$found; run: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	@touch $@

# A recipe: installs $(PACKAGES) into .venv.
define install
	@echo "Installing into .venv, which takes minutes the first time: $(PACKAGES)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PACKAGES)
	@touch $@
endef

.venv/study: PACKAGES = --editable '.[study]'
.venv/study: pyproject.toml | .venv/python
	$(install)

.venv/test: PACKAGES = --editable '.[test]'
.venv/test: pyproject.toml | .venv/python
	$(install)

.venv/docs: PACKAGES = 'sphinx>=8' 'myst-nb>=1.2' 'ipykernel>=6.29,<7.3' 'sphinx-book-theme>=1.1'  # a later kernel prints warnings
.venv/docs: | .venv/test
	$(install)

.venv/notebook: PACKAGES = 'nbclient>=0.10' 'ipykernel>=6.29,<7.3'
.venv/notebook: | .venv/test
	$(install)

.venv/package: PACKAGES = build twine
.venv/package: | .venv/test
	$(install)

# PyPI's PyTorch for Linux brings CUDA (3 GB). PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu avoids that.
.venv/peers: PACKAGES = --no-compile 'torch>=2.9,<2.14' 'timm>=1.0.20' 'keras>=3.12' dm-haiku equinox
.venv/peers: | .venv/test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps sbx-rl
	$(install)

# The CUDA wheels (6 GB) have an environment of their own: with them JAX would look for a GPU in every test.
.venv-accelerators: requirements.txt | .venv/test
	$(PYTHON) -m venv .venv-accelerators
	.venv-accelerators/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt 'jax[cuda13]'
	@touch $@
