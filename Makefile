# Retake: `make demo` shows the whole arrow, `make test` proves it. Everything else is one word, too.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help sync sync-test sync-worker lerobot-env readers lab-env demo-lab test-lab zoo demo test test-core test-worker check format bench matrix mutants prove value clean

VENV := .venv
WORKER := .venv-worker
PY := $(VENV)/bin/python
WPY := $(WORKER)/bin/python
PYTHON ?= python3
# Compiled kernels of Isaac Lab's physics and renderer (2 to 4 minutes once) stay in the checkout.
LAB := WARP_CACHE_PATH=$(CURDIR)/.lab-env/warp-cache
export PYTHONUTF8 := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## / — /' | sort

sync: $(VENV)/.synced   ## environment of the demo, without torch: core, usd, newton, video, export, worker service
$(VENV)/.synced: pyproject.toml constraints.txt scripts/make_env.py
	@$(PYTHON) scripts/make_env.py $(VENV)

sync-test: $(VENV)/.synced-test   ## the same environment with the tools of tests and checks
$(VENV)/.synced-test: $(VENV)/.synced
	@$(PYTHON) scripts/make_env.py .venv-test

sync-worker: $(WORKER)/.synced   ## environment of the GPU process (torch, diffusers)
$(WORKER)/.synced: pyproject.toml constraints.txt scripts/make_env.py
	@$(PYTHON) scripts/make_env.py $(WORKER)

lerobot-env:     ## isolated environment with LeRobot itself, to read exported datasets with the real reader
	@$(PYTHON) scripts/lerobot_env.py

readers:         ## open every export format with the real readers that the package index gives; docs/proof/readers.md
	@$(PY) scripts/prove.py readers

lab-env:         ## isolated environment with Isaac Lab 3 itself, without Kit: real host of the recorder's tests and of demo-lab
	@$(PYTHON) scripts/lab_env.py

zoo:             ## fetch and convert the robots of scripts/zoo/robots.csv into .zoo (ASSETS=FOLDER names a newton-assets checkout)
	@$(PYTHON) scripts/zoo/make.py $(if $(ASSETS),--assets $(ASSETS))

demo: sync       ## one simulated pick-and-drop becomes three takes and a report in runs/demo
	@$(VENV)/bin/retake run --preset short --run runs/demo

demo-lab: lab-env sync   ## the pick-and-drop in Isaac Lab: two clones, recorded, through the whole arrow, in runs/demo-lab
	@$(LAB) .lab-env/bin/python -m retake.lab record --import exts/retake.lab/examples/pick_place_env.py \
	  --task Retake-PickPlace-Panda-v0 --num_envs 2 --envs all --episodes 2 --success-only --scenery Tray \
	  --policy exts/retake.lab/examples/scripted.py:policy --task-text "pick up the packet and drop it in the tray" --out runs/demo-lab
	@for run in runs/demo-lab/env*; do $(VENV)/bin/retake run --run $$run --camera front || exit; done

test: test-core test-worker   ## every law at reduced counts, both environments (at most 15 minutes on 2 cores)

test-core: sync-test
	@$(PY) -m pytest tests --ignore=tests/worker -n 2 --dist loadfile -q

# Where no Python for the worker is, the sentence that says so stands in place of its tests.
test-worker:
	@if $(PYTHON) scripts/make_env.py --can $(WORKER); then \
	  make --no-print-directory sync-worker && $(WPY) -m pytest tests/worker -n 2 --dist loadfile -q; \
	else echo "the tests of the worker are skipped"; fi

test-lab:        ## the recorder in the real Isaac Lab, where `make lab-env` made it; part of CI, not of `make test`
	@if [ -e .lab-env/.synced ]; then $(LAB) .lab-env/bin/python -m pytest tests/lab -q -W default -p no:cacheprovider; \
	else echo "the tests in Isaac Lab are skipped: make lab-env"; fi

check: sync-test      ## format, lint, types, import rules
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(VENV)/bin/pyright
	@PYTHONPATH=. $(VENV)/bin/lint-imports

format: sync-test     ## rewrite the code in the house's format
	@$(PY) -m ruff format . && $(PY) -m ruff check --fix .

bench: sync-test      ## measure, print a table, write docs/proof/bench.json
	@$(PY) scripts/bench.py

matrix: ## the demo and the tests of core and usd under every supported Python found here; docs/proof/matrix.md
	@$(PYTHON) scripts/matrix.py

mutants: sync-test sync-worker   ## do the tests notice small faults? a sample per package; docs/proof/mutants.md
	@nice -n 10 $(PY) scripts/mutants.py

prove: sync-test sync-worker   ## every proof at full counts; resumable; writes docs/proof
	@$(PY) scripts/prove.py

value: sync-test sync-worker   ## does training on takes make a policy better? hours, resumable; writes docs/proof/value.md
	@$(PY) scripts/prove.py value

clean:           ## remove caches; environments and runs stay
	@rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist build
