# `make` alone says what there is. Needs Python 3.11 or later and make; everything else comes from requirements.lock.

.DEFAULT_GOAL := help
.NOTPARALLEL:
# Where it is set, our own code would be compiled anew at each of a thousand starts.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
PYTHON ?= $(firstword $(foreach python,python3.11 python3,$(shell \
	$(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(python))))

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: .venv/installed ## Make .venv from the hashed lock

.venv/installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; name one with: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	@# The lock names all that is needed, and most of it is never imported: nothing to resolve or to compile.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: demo
demo: install ## Show the whole way of the data and go on running (ONCE=1: tell the story, then end)
	$(BIN)/python -m scripts.demo $(if $(ONCE),--once)

.PHONY: run
run: install ## Run both sides until Ctrl-C
	$(BIN)/python -m scripts.run

.PHONY: seed
seed: install ## Fill an empty CRM database with people who do not exist (N=1000)
	$(BIN)/python -m scripts.seed $(or $(N),1000) $(ARGS)

.PHONY: screenshots
screenshots: install ## Take the pictures in docs/screenshots/ anew
	$(BIN)/python -m scripts.screenshots

.PHONY: generate
generate: install ## Write generated/ from openapi/, the npm package too
	$(BIN)/python -m scripts.generate

.PHONY: drift
drift: install ## Check that generated/ is what openapi/ says
	$(BIN)/python -m scripts.generate --check

.PHONY: contract
contract: install ## Say what changed in the webhook contract, who would break, and which number is due
	$(BIN)/python -m scripts.contract

.PHONY: release
release: undone check ## Freeze today's webhook contract, with its wheel and a line in the changelog
	$(BIN)/python -m scripts.release

.PHONY: undone
undone: install
	@$(BIN)/python -m scripts.release --undo

.PHONY: reference
reference: install ## Build the reference of all contracts and their releases as static pages in var/reference/
	$(BIN)/python -m scripts.reference

.PHONY: lint
lint: install ## Check style, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: test
test: install ## Run the tests
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder -m "not long"

.PHONY: fuzz
fuzz: install ## Throw what the contract allows and forbids at a real server (ARGS="--seed random" to search on)
	$(BIN)/python -m scripts.fuzz $(ARGS)

.PHONY: smoke
smoke: install ## Try a CRM that runs, and store nothing there (URL=http://localhost:5001/webhooks; the key from .env)
	$(BIN)/python -m scripts.smoke $(URL)

.PHONY: bench
bench: .venv/bench ## Measure our speed beside the alternatives (ARGS="webhooks --rounds 3" for a part)
	$(BIN)/python -m scripts.bench $(ARGS)

.venv/bench: .venv/installed requirements-bench.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-bench.lock
	@touch $@

.PHONY: faults
faults: install ## Kill server, relay and website a thousand times, break wires and disks, and look for what is lost (long)
	BACKLOG_EVENTS=1000 KILL_EVERY=1 $(BIN)/python -m pytest tests/faults
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m long
	CHAOS_KILLS=1000 CHAOS_EVENTS=6000 $(BIN)/python -m pytest tests/end_to_end -k killed -s

.PHONY: drill
drill: install ## Practise the loss of a database: back up, go on, destroy, restore, and see what is missing
	$(BIN)/python -m scripts.drill $(ARGS)

.PHONY: check
check: lint drift contract test fuzz ## All that CI runs

.PHONY: build
build: install ## Make one wheel in dist/
	rm -rf dist
	$(BIN)/hatchling build --target wheel

.PHONY: lock
lock: ## Make requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --quiet --upgrade --all-extras --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --custom-compile-command "make lock" --output-file requirements.lock
	uv pip compile pyproject.toml --quiet --upgrade --constraints requirements.lock --group bench --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
		--output-file requirements-bench.lock
