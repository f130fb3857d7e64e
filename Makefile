# smallwit's commands. `make` alone lists them. Written for GNU make 3.81 and later, so that macOS' own will do.
#
# PYTHON is the interpreter that .venv is made with (3.11 or later), WORKERS the number of test processes: on two cores
# three, because a quarter of the tests' time is waiting.

PYTHON ?= python3
WORKERS ?= 3

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
# Each test process has one thread to itself: more threads than cores only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: help quickstart test test-fast lint docs bench-training bench-rl bench-rollout bench-grading bench-gold-changes bench-eval bench-data bench-device bench-gpu gpu-kit bench-curves bench-seeds bench-plan check-families check-handover check-report fuzz clean
# Two installations into one .venv at the same time would break it.
.NOTPARALLEL:

help:
	@echo 'make quickstart   train a small model through SFT, KD and RL on this machine (10 minutes on 2 cores)'
	@echo 'make test         run all tests (5 to 17 minutes on 2 cores, as fast as they are)'
	@echo 'make test-fast    run the tests that take no time'
	@echo 'make lint         check style and types'
	@echo 'make docs         write docs/reference/ and the schema of recipes again'
	@echo 'make bench-training   smallwit and TRL on the same work: speed and memory (15 to 35 minutes on 2 cores)'
	@echo 'make bench-rl     whole GRPO steps by smallwit and by TRL: speed and memory (at most 20 minutes on 2 cores)'
	@echo 'make bench-rollout   generation by smallwit and by transformers, and its share of the matrix products (at most 20 minutes)'
	@echo 'make bench-grading   the graders against their bars (about a minute on 2 cores)'
	@echo 'make bench-gold-changes   published gold answers against themselves and with one character changed (a minute)'
	@echo 'make bench-eval   smallwit and lm-evaluation-harness on the same prompts (about 4 minutes on 2 cores)'
	@echo 'make bench-data       deduplication and decontamination against their bars (about 4 minutes on 2 cores)'
	@echo 'make bench-device     the quickstart student as GGUF files in llama.cpp: scores, speed, memory (about 5 minutes)'
	@echo 'make bench-gpu        the whole path on a GPU, in small, against the CPU, and its speed (under 9 minutes)'
	@echo 'make gpu-kit          that benchmark for a machine with torch, transformers and no network, in the folder gpu-kit'
	@echo 'make bench-curves     every objective alone, from a quickstart: table and figure'
	@echo 'make bench-seeds      coverage of the intervals over seeds and problems, by simulation (8 minutes)'
	@echo 'make bench-plan       smallwit plan against what eight recipes then take (7 minutes on 2 cores)'
	@echo 'make check-families   every family of transformers against its own forward pass: docs/models.md (a minute)'
	@echo 'make check-handover   published folders read by two major versions of transformers (about 2 minutes on 2 cores)'
	@echo 'make check-report     the report in headless Chromium: screens, filters, keyboard, print (a minute)'
	@echo 'make fuzz             damaged data files for every reader: read, or refused in one line (ten minutes)'
	@echo 'make clean        remove .venv and caches; runs/ stays'

quickstart: .venv/installed
	$(BIN)/smallwit run recipes/quickstart.yaml

test: .venv/installed-test
	$(PYTEST)

test-fast: .venv/installed-test
	$(PYTEST) -m 'not slow'

lint: .venv/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python docs/links.py
	$(BIN)/mypy

docs: .venv/installed
	$(BIN)/python docs/generate.py

bench-training: .venv/installed-bench
	$(BIN)/python benchmarks/training.py

bench-rl: .venv/installed-bench
	$(BIN)/python benchmarks/rl.py

bench-rollout: .venv/installed
	$(BIN)/python benchmarks/rollout.py

bench-grading: .venv/installed
	$(BIN)/python benchmarks/grading.py

bench-gold-changes: .venv/installed
	$(BIN)/python benchmarks/gold_changes.py

bench-eval: .venv/installed-bench-eval
	$(BIN)/python benchmarks/evaluation.py

bench-data: .venv/installed
	$(BIN)/python benchmarks/data.py

bench-device: quickstart .venv/installed-device
	$(BIN)/python benchmarks/device.py

bench-gpu: .venv/installed-test
	$(BIN)/python benchmarks/gpu.py

gpu-kit: .venv/installed-test
	$(BIN)/python benchmarks/gpu_kit.py

bench-curves: quickstart
	$(BIN)/python benchmarks/learning_curves.py

bench-plan: .venv/installed-test
	$(BIN)/python benchmarks/plan.py

bench-seeds: .venv/installed
	$(BIN)/python benchmarks/seed_coverage.py

check-families: .venv/installed
	$(BIN)/python benchmarks/families.py

check-handover: .venv/installed .venv-handover/installed
	$(BIN)/python benchmarks/handover.py --old .venv-handover/bin/python

check-report: quickstart
	$(BIN)/python benchmarks/check_report.py

fuzz: .venv/installed
	$(BIN)/python benchmarks/fuzz_readers.py

clean:
	rm -rf .venv .venv-handover .mypy_cache .pytest_cache .ruff_cache src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: a second make installs nothing, unless what is to be installed has changed.
.venv/installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing smallwit into .venv (torch is large: the first time takes some minutes)'
	$(INSTALL) -e '.[gguf]'
	@touch $@

.venv/installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing smallwit and its test tools into .venv (torch is large: the first time takes some minutes)'
	$(INSTALL) -e '.[test,lora,serving]'
	@touch $@

.venv/installed-bench: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing smallwit and TRL, its peer, into .venv (torch is large: the first time takes some minutes)'
	$(INSTALL) -e '.[bench]'
	@touch $@

.venv/installed-bench-eval: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing smallwit and lm-evaluation-harness, its peer, into .venv (torch is large: the first time takes some minutes)'
	$(INSTALL) -e '.[bench-eval]'
	@touch $@

# What others read a published folder with: the last release of transformers 4, in an environment of its own.
.venv-handover/installed: Makefile | $(BIN)/python
	@echo 'installing transformers 4.57 into .venv-handover (torch is large: the first time takes some minutes)'
	$(BIN)/python -m venv .venv-handover
	.venv-handover/bin/python -m pip install --disable-pip-version-check --quiet \
		transformers==4.57.6 torch==2.13.0 tokenizers==0.22.2 huggingface_hub==0.36.2 Jinja2==3.1.6
	@touch $@

.venv/installed-device: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing smallwit and llama.cpp into .venv'
	$(INSTALL) -e '.[device]'
	@touch $@

.venv/installed-lint: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing smallwit and its lint tools into .venv (torch is large: the first time takes some minutes)'
	$(INSTALL) -e '.[lint]'
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
		echo 'smallwit: there is no $(PYTHON) here; name a Python 3.11 or later, for example: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "smallwit: Python 3.11 or later is needed, $(PYTHON) is `$(PYTHON) -V 2>&1`; for example: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { \
		rm -rf .venv; echo 'smallwit: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu install python3-venv' >&2; exit 1; }
