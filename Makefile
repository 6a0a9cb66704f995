# What developers run; .ci/run calls nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
# Where pip finds PyTorch's CPU build on a machine without a GPU, if not on the index that pip uses anyway:
#   make install TORCH_INDEX=<the CPU index that PyTorch's "Get started" page names>
TORCH_INDEX ?=
SCRIPTS := $(wildcard tools/*.sh tools/*/*.sh) .ci/run
QUIET := -q --disable-pip-version-check

.PHONY: install quickstart check test test-slow test-gpu format calibration lock browser slurm generated docs wheel wheel-light clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(QUIET) $(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install $(QUIET) -r requirements.lock
	$(BIN)/python -m pip install $(QUIET) --no-deps -e .
	@touch $@

quickstart: install
	$(BIN)/bystander run quickstart

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/shellcheck $(SCRIPTS)

# Two files at a time, a thread each: on two cores in little more than half of the time. `make test JOBS=0`: one by one.
JOBS = 2
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu" -n $(JOBS) --dist loadfile

test-slow: install ## also what peers are compared with
	$(BIN)/python -m pip install $(QUIET) -r requirements-slow.lock
	$(BIN)/python -m pytest -m slow

# On a GPU machine its own Python does it (`make test-gpu BIN=/usr/bin INSTALLED=`); BYSTANDER_GPU_MODEL names a model.
INSTALLED = install
test-gpu: $(INSTALLED) ## the two forward passes of a GPU held together; prints what it covered
	$(BIN)/python3 -m pytest tests/gpu -m gpu -W default -rs

calibration: install ## simulated studies of the real sizes: minutes on two cores
	$(BIN)/python -m calibration --out docs/calibration.md

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: install ## the package outside its checkout: built, installed into an empty environment, tried from elsewhere
	PYTHON=$(PYTHON) TORCH="$(TORCH)" TORCH_INDEX="$(TORCH_INDEX)" bash tools/wheel.sh

wheel-light: install ## the same for tables alone, in half a minute
	PYTHON=$(PYTHON) bash tools/wheel.sh light

generated: install ## what is made of the settings, after a change of them
	$(BIN)/bystander schema --out src/bystander/studies/study.schema.json
	$(BIN)/python tools/docs/settings_pages.py

docs: install ## the site, in site/; a broken link or reference is an error
	$(BIN)/python -m pip install $(QUIET) -r requirements-docs.lock
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

slurm: ## Debian's Slurm, for the tests that start a cluster of one node
	@command -v slurmctld >/dev/null || (apt-get update -qq && apt-get install -y -qq slurmctld slurmd slurm-client munge >/dev/null)

browser: ## Debian's Chromium, for the tests that look at the report
	@command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium >/dev/null)

lock: ## pin what is installed now
	$(BIN)/python -m pip freeze --exclude-editable | grep -v -e '^torch==' -e '^bystander' > requirements.lock

clean:
	rm -rf $(VENV) runs build dist site .pytest_cache .ruff_cache
