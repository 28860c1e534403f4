# `make` lists the targets. Everything runs in .venv, which `make setup` makes from the lock files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
# Tests of clusters have several nodes on this machine, and keep all of its cores busy by themselves.
CLUSTERS := tests/cluster/test_local.py tests/integration/test_cluster.py
# Tests of the model whose results depend on the kernels of a CPU.
KERNELS := tests/model/nn tests/model/decoding tests/model/captioner tests/model/neuraltalk2 \
	tests/model/training/test_loss.py tests/pipeline/inference/test_stages.py tests/jobs/test_import_neuraltalk2.py
IMAGES ?=
OUT ?= $(if $(IMAGES),demo-yours,demo)
# Public-domain photos that scikit-image ships.
PHOTOS = $(addprefix $(VENV)/lib/python3*/site-packages/skimage/data/, \
	astronaut.png camera.png chelsea.png coffee.png coins.png grass.png motorcycle_left.png rocket.jpg)

# With `cpu` PyTorch comes from its own index, without CUDA; else from the package index, on Linux with CUDA.
TORCH ?=
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode
INSTALL_TORCH = $(if $(TORCH),$(INSTALL) --no-deps --torch-backend $(TORCH) \
	$(shell grep -oE '^torch(vision)?==[^ ]+' requirements-dev.lock))
# The versions of the lock file; a hash that differs is an error here, too.
PINNED := -r pyproject.toml --constraint requirements-dev.lock
COMPILE := $(BIN)/python -m compileall -q cluster configs jobs model pipeline shardtalk

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-kernels test-s3 chaos check docs bench lock clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: $(VENV)/.ready  ## make .venv with everything in it (TORCH=cpu: PyTorch without CUDA)

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit("Shardtalk needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.ready: requirements-dev.lock pyproject.toml | $(BIN)/uv
	$(INSTALL_TORCH)
	$(INSTALL) $(if $(TORCH),$(PINNED) --extra dev,--require-hashes -r requirements-dev.lock)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	$(COMPILE)
	@touch $@

$(VENV)/.demo: requirements-dev.lock pyproject.toml | $(BIN)/uv
	$(INSTALL_TORCH)
	$(INSTALL) $(PINNED) --extra demo
	$(COMPILE)
	@touch $@

# `make demo` does without the extras and the tools of development.
demo: $(if $(wildcard $(VENV)/.ready),setup,$(VENV)/.demo)  ## caption real photos: table, Parquet, vis.json, gallery page (IMAGES=folder for your own)
	@$(BIN)/python -m shardtalk caption $(if $(IMAGES),"$(IMAGES)",$(PHOTOS)) --output $(OUT) --vis_json
	@$(BIN)/python -c 'import sys, pandas; rows = pandas.read_parquet(sys.argv[1]); \
		print(rows[["image_id", "caption", "error_code"]].fillna("").to_string(index=False))' $(OUT)
	@$(BIN)/python -m shardtalk gallery $(OUT)
	@echo "rows: $(OUT)/part-*.parquet; vis.json: $(OUT)/_exports/vis.json"

test: setup  ## run all tests; some faults of each kind, and S3 by a mock
	$(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadgroup $(CLUSTERS:%=--ignore %)
	$(BIN)/python -m pytest -q $(CLUSTERS)

test-kernels: setup  ## run what computes with the kernels of a CPU without AVX, and two threads
	ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=2 $(BIN)/python -m pytest -q $(KERNELS)

test-s3: setup  ## run the tests of S3 on the store at AWS_ENDPOINT_URL; without it, on OpenStack Swift (as root on Debian)
	$(if $(AWS_ENDPOINT_URL),,tests/integration/swift.sh run) sh -c \
		'S3_TEST_ENDPOINT="$$AWS_ENDPOINT_URL" exec $(BIN)/python -m pytest -q tests/integration/test_s3.py'

chaos: setup  ## inject every fault at every place, count them
	CHAOS=full $(BIN)/python -m pytest -q tests/chaos tests/fuzz tests/integration/test_cluster.py::test_a_job_outlives_all_workers_but_one

check: setup  ## ruff format, ruff, mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: setup  ## build the site with the API reference; broken links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: setup  ## print the speeds as ratios
	$(BIN)/python -m benchmarks

lock:  ## renew the lock files from pyproject.toml
	$(BIN)/uv pip compile --no-config --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --custom-compile-command "make lock" \
		pyproject.toml --extra train --output-file requirements.lock
	$(BIN)/uv pip compile --no-config --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --custom-compile-command "make lock" \
		pyproject.toml --extra dev --constraint requirements.lock --output-file requirements-dev.lock

clean:  ## remove .venv and what the tools left
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache demo demo-yours build dist site
