# `make study`: the whole path on real data, from nothing. `make test`: everything that is checked.
VENV := .venv
BIN := $(VENV)/bin
# The first Python that can make an environment; PYTHON=… overrides.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	2>/dev/null && echo $$python && break; done)

.PHONY: study test lint types tests test-cluster env dev-env constraints ci-deps clean

study: env
	$(BIN)/study run quickstart
	$(BIN)/study report quickstart

test: lint types tests
	$(CLUSTER) -m "not thorough"

lint: dev-env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: dev-env
	$(BIN)/mypy

# In two processes, a file after the other: what a file's tests share is made once.
tests: dev-env
	OMP_NUM_THREADS=1 PYTHONPATH=.ci $(BIN)/pytest -p skips -n 2 --dist loadfile \
		--no-loadscope-reorder --ignore tests/cluster

# A cluster of hosts that are network namespaces of this machine, with all its faults, in half an hour:
# as root, with sshd and rsync. `make test` leaves out what is thorough.
CLUSTER := OMP_NUM_THREADS=1 PYTHONPATH=.ci $(BIN)/pytest -p skips tests/cluster
test-cluster: dev-env
	$(CLUSTER)

env: $(VENV)/.installed
dev-env: $(VENV)/.installed-dev

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: found no Python 3.11, 3.12 or 3.13 with venv and \
	ensurepip (on Debian: apt-get install python3-venv); or say PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV): a few GB, a few minutes"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV): a few GB, a few minutes"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/.installed

# The newest versions that pyproject.toml admits, by name and version alone.
constraints:
	clean=$$(mktemp -d) && $(PYTHON) -m venv $$clean && \
	$$clean/bin/python -m pip install --quiet '.[dev]' && \
	$$clean/bin/python -m pip freeze --exclude robust-loss-study > constraints.txt && \
	rm -rf $$clean build

# What the tests need from Debian's packages, as root: a browser that opens the report, LaTeX,
# what makes hosts of a cluster, and Slurm.
ci-deps:
	for program in chromium pdflatex rsync ip /usr/sbin/sshd sbatch; do \
	command -v $$program >/dev/null || exec sh -c 'apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium \
	texlive-latex-base texlive-latex-recommended lmodern openssh-server openssh-client rsync \
	iproute2 slurmctld slurmd slurm-client munge >/dev/null'; done

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
