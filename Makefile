PYTHON ?= python3
WORKERS ?= 2
OUT ?= out

BIN := .venv/bin
STAMP := .venv/.installed

export MPLBACKEND = Agg

.DEFAULT_GOAL := help
.PHONY: help test lint demo demos reproduce format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z.]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

.venv: $(STAMP) ## create the virtual environment with pinned versions

# torch goes first, by itself and pinned, so that a local build of it (CPU only, say) is kept.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $(STAMP)

lint: $(STAMP) ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy manifoldkit

# One thread for each of the workers: more would compete for the same cores.
test: lint ## all checks and tests, doctests included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

demo: $(STAMP) ## attack a network on the manifold of a digit; pictures go to out/
	$(BIN)/python demos/plot_mnist_attack.py --out $(OUT)

demos: $(STAMP) ## every demo, one after another
	set -e; for demo in demos/plot_*.py; do echo "== $$demo"; $(BIN)/python "$$demo" --out $(OUT); done

reproduce: $(STAMP) ## the slow tests and tables that reproduce published numbers
	$(BIN)/python -m pytest -m slow
	$(BIN)/python benchmarks/risk_tables.py --out benchmarks/risk_tables.md
	$(BIN)/python benchmarks/on_manifold_training.py --out benchmarks/on_manifold_training.md
	$(BIN)/python benchmarks/likelihoods.py --out benchmarks/likelihoods.md
	$(BIN)/python benchmarks/purification.py --out benchmarks/purification.md

	$(BIN)/python benchmarks/gridvae.py --out benchmarks/gridvae.md --work $(OUT)/gridvae.jsonl

format: $(STAMP) ## repair what ruff can repair
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove everything that was made, the virtual environment included
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info $(OUT)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
