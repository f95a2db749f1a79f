PYTHON ?= python3
WORKERS ?= 2
OUT ?= out

BIN := .venv/bin
STAMP := .venv/.installed

export MPLBACKEND = Agg

.DEFAULT_GOAL := help
.PHONY: help test lint demo demos reproduce turntable benchmarks docs format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z.]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

.venv: $(STAMP) ## create the virtual environment with pinned versions

# torch goes first, by itself and pinned, so that a local build of it (CPU only, say) is kept. torchattacks, which the
# tests compare with, asks for torchvision, and so for another torch, but does not import it: it comes alone.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -c constraints.txt --no-deps torchattacks
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

# The turntable runs at 32 pixels with training views 3 degrees apart, 1.7 CPU hours; the full one, at 64 pixels
# and one degree, is `make turntable`.
reproduce: $(STAMP) ## the slow tests and tables that reproduce published numbers
	$(BIN)/python -m pytest -m slow
	$(BIN)/python benchmarks/risk_tables.py --out benchmarks/risk_tables.md
	$(BIN)/python benchmarks/on_manifold_training.py --out benchmarks/on_manifold_training.md
	$(BIN)/python benchmarks/likelihoods.py --out benchmarks/likelihoods.md
	$(BIN)/python benchmarks/purification.py --out benchmarks/purification.md
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/neural_isometries.py --staged-seeds 8 2 --cache $(OUT)/neural_isometries \
		--out benchmarks/neural_isometries.md
	$(BIN)/python benchmarks/isometry.py --work $(OUT)/isometry --out benchmarks/isometry.md
	$(BIN)/python benchmarks/lil_geometry.py --work $(OUT)/lil/geometry --out benchmarks/lil_geometry.md
	$(BIN)/python benchmarks/lil_robustness.py --work $(OUT)/lil --picture docs/images/lil_robustness.png \
		--out benchmarks/lil_robustness.md
	$(BIN)/python benchmarks/lil_regimes.py --work $(OUT)/lil/regimes --out benchmarks/lil_regimes.md
	$(BIN)/python benchmarks/gridvae.py --out benchmarks/gridvae.md --work $(OUT)/gridvae.jsonl
	$(BIN)/python benchmarks/turntable.py --work $(OUT)/turntable --out benchmarks/turntable.md --pictures docs/images

turntable: $(STAMP) ## the full turntable, 64 pixels, about 22 CPU hours (an interrupted run goes on)
	$(BIN)/python benchmarks/turntable.py --full --work $(OUT)/turntable --out $(OUT)/turntable_full.md --pictures $(OUT)

docs: $(STAMP) ## theory, gallery and API as web pages in docs/_build
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

# Peers that are not installed are left out of the tables, and said to be.
benchmarks: $(STAMP) ## speed and memory beside other libraries, an hour or two on a quiet machine
	$(BIN)/python benchmarks/fit.py --out benchmarks/fit.md --figure docs/images/growth.png
	$(BIN)/python benchmarks/fit_images.py --repeats 2 --out benchmarks/fit_images.md
	$(BIN)/python benchmarks/hot_paths.py > benchmarks/hot_paths.md
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/reductions.py --out benchmarks/reductions.md
	$(BIN)/python benchmarks/knn.py --out benchmarks/knn.md
	$(BIN)/python benchmarks/pgd.py --out benchmarks/pgd.md

format: $(STAMP) ## repair what ruff can repair
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove everything that was made, the virtual environment included
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info $(OUT)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
