# make demo [KEEP=1]            play the story; with KEEP it stays, with the Temporal UI
# make test [JOBS=4] [STRICT=1]  everything that has to pass: lint, types, layers, all suites; up to three tests
#                               that fail are run once more, alone, and told of; with STRICT they have failed
# make lint                     the same without the suites
# make bench-turn [JSON=FILE]   what a turn costs
# make bench-idle [SESSIONS=N] [JSON=FILE]  what 10,000 open sessions cost that do nothing
# make bench-cancel [SAMPLES=N] [JSON=FILE]  how soon a cancel is felt
# make bench-context [JSON=FILE]  what a prompt costs as its session grows
# make bench-gateway [JSON=FILE]  what HTTP costs
# make bench-store [JSON=FILE]  what the session store costs, beside the floor and google-adk
# make soak [MINUTES=30] [SEED=N] [DATABASE=postgres|sqlite]  random sessions under random faults, then a checker
# make soak-store [STEPS=N]     random sessions against a naive model of the store, a million steps
# make constraints              renew constraints.txt from the newest releases that are allowed
# make crash-matrix            kill a worker at every crash point, every time it is passed, on both databases
# make clean                    remove what was built and installed
#
# All it takes is make and a Python of 3.11 or newer; the first run installs into .venv.

SHELL := /bin/sh
VENV  := .venv
BIN   := $(VENV)/bin
PIP   := -m pip -qq --disable-pip-version-check
# What is never imported need not be compiled either.
INSTALL := $(PIP) install --no-compile
# And what is imported is compiled once: the tests start hundreds of processes, and one that compiles
# all its libraries for itself takes four times the CPU to start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint crash-matrix bench-cancel bench-idle bench-context bench-turn bench-gateway bench-store soak soak-store constraints clean
.DEFAULT_GOAL := demo

# $(call step,NAME,COMMAND): run it, say how long it took.
step = @printf '== %s\n' '$(1)'; began=$$(date +%s); $(2) && \
	printf '   %s: ok, %s s\n' '$(1)' "$$(( $$(date +%s) - began ))"

# Read from pyproject.toml here, because pip knows `--group` only since 25.1.
test_group = $(1) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["test"], sep="\n")'

demo: $(VENV)/.installed
	@$(BIN)/perdure demo $(if $(KEEP),--keep)

test: lint
	$(call step,pytest,$(BIN)/python -m pytest --cache-clear -n $(or $(JOBS),4) --dist loadfile \
		--no-loadscope-reorder --durations=10 || { [ $$? -eq 1 ] && STRICT=$(STRICT) $(BIN)/python -m tests.once_more; })

lint: $(VENV)/.installed-test
	$(call step,ruff check,$(BIN)/ruff check --quiet .)
	$(call step,ruff format,$(BIN)/ruff format --quiet --check .)
	$(call step,mypy,$(BIN)/mypy)
	$(call step,import-linter,$(BIN)/lint-imports)

bench-context: $(VENV)/.installed
	@$(BIN)/python -m bench.context $(if $(JSON),--json '$(JSON)')

bench-turn: $(VENV)/.installed
	@$(BIN)/python -m bench.turn $(if $(JSON),--json '$(JSON)')

bench-idle: $(VENV)/.installed
	@$(BIN)/python -m bench.idle --sessions $(or $(SESSIONS),10000) $(if $(JSON),--json '$(JSON)')

bench-cancel: $(VENV)/.installed
	@$(BIN)/python -m bench.cancel --samples $(or $(SAMPLES),20) $(if $(JSON),--json '$(JSON)')

bench-gateway: $(VENV)/.installed-test
	@$(BIN)/python -m bench.gateway $(if $(JSON),--json '$(JSON)')

bench-store: $(VENV)/.installed-test
	@$(BIN)/python -m bench.store $(if $(JSON),--json '$(JSON)')

soak: $(VENV)/.installed-test
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED)) $(if $(DATABASE),--database $(DATABASE))

crash-matrix: $(VENV)/.installed-test
	$(call step,pytest,CRASH_MATRIX=whole $(BIN)/python -m pytest tests/integration/test_crash_matrix.py)

soak-store: $(VENV)/.installed-test
	@$(BIN)/python -m tests.conformance.soak --steps $(or $(STEPS),1000000) $(if $(SEED),--seed $(SEED)) $(if $(STORE),--store $(STORE))

clean:
	rm -rf $(VENV) $(VENV)-constraints $(VENV)-adk $(VENV)-node dist build .perdure
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.made
	@echo 'installing Perdure and what it needs into $(VENV); the first time takes about a minute …'
	@$(BIN)/python $(INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo 'installing what the tests need; the first time takes about a minute …'
	@$(call test_group,$(BIN)/python) > $(VENV)/test-group.txt
	@$(BIN)/python $(INSTALL) -c constraints.txt -r $(VENV)/test-group.txt
	@touch $@

# A folder left half made by an interrupted run has no pip that runs, and is made again.
$(VENV)/.made:
	@if $(BIN)/python -m pip --version >/dev/null 2>&1; then touch $@; exit; fi; \
	for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			echo "making $(VENV) with $$($$python --version)"; \
			$$python -m venv --clear $(VENV) && touch $@; exit; \
		fi; \
	done; \
	echo 'no Python of 3.11 or newer was found; install one, or name it: make PYTHON=/path/to/python3.12' >&2; \
	exit 1

constraints: $(VENV)/.made
	@rm -rf $(VENV)-constraints
	@$(BIN)/python -m venv $(VENV)-constraints
	@$(call test_group,$(BIN)/python) > $(VENV)/test-group.txt
	@$(VENV)-constraints/bin/python $(INSTALL) -e '.[dev]' llama-index-workflows -r $(VENV)/test-group.txt
	@head -2 constraints.txt > $(VENV)/constraints.txt
	@$(VENV)-constraints/bin/python -m pip freeze --exclude-editable >> $(VENV)/constraints.txt
	@mv $(VENV)/constraints.txt constraints.txt
	@rm -rf $(VENV)-constraints
