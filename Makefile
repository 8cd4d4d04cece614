# make demo | make test      everything else is listed by: make help
# Settings: PYTHON=python3.12  ACCELERATOR=cpu|cuda  PIP_FLAGS="words for pip"  GRPO_VENV=folder
# ARGS="learner.lr=1e-4 ..." adds to the command of demo and pipeline
PYTHON      ?= python3
PIP_FLAGS   ?=
GRPO_VENV   ?= .venv
# Once installed, the kind stays: after `make setup ACCELERATOR=cuda`, a plain `make test` is a CUDA one.
ACCELERATOR ?= $(or $(shell cut -d' ' -f1 '$(GRPO_VENV)/installed' 2>/dev/null),cpu)
PY          := "$(GRPO_VENV)/bin/python"

# What a caller's shell may carry must not change what runs here.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS MKL_NUM_THREADS
# exec: a shell in between would swallow make's SIGTERM, and a run would end without its last checkpoint.
offline := exec env HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
# vLLM's sampler compiles a helper with g++ even in eager mode; on a CPU nothing here needs it, so no compiler is needed.
ifeq ($(ACCELERATOR),cpu)
offline += TORCHDYNAMO_DISABLE=1
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo pipeline test test-fast lint format typecheck golden tiny-model clean \
	bench-async bench-learner bench-sft bench-eval bench-memory docs docs-reference \
	docker-tools docker-lint docker-check docker-images

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

setup: ## make .venv with the pinned requirements (does nothing the second time)
	@PYTHON='$(PYTHON)' PIP_FLAGS='$(PIP_FLAGS)' GRPO_VENV='$(GRPO_VENV)' sh scripts/install.sh '$(ACCELERATOR)'

demo: setup ## a whole policy-gradient run on two CPU cores, no network
	@$(offline) $(PY) cli.py command=policy_gradient preset=cpu_demo $(ARGS)

pipeline: setup ## data, fine-tuning, policy gradient, evaluation and report on two CPU cores, no network
	@$(offline) $(PY) cli.py command=pipeline preset=cpu_demo $(ARGS)

test: setup ## every test
	@$(offline) $(PY) -m pytest

test-fast: setup ## the tests that take seconds
	@$(offline) $(PY) -m pytest -m "not slow"

lint: setup ## style and formatting
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: setup ## rewrite the files as lint wants them
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

typecheck: setup ## mypy, strict
	@$(PY) -m mypy

bench-async: setup ## how much time overlapping generation and learning saves
	@$(offline) $(PY) -m benchmarks.async_speed

bench-learner: setup ## how fast and frugal the learner is, beside TRL's loss
	@$(PY) -c "import trl" 2>/dev/null || $(PY) -m pip install -q --no-deps $(PIP_FLAGS) -r requirements/bench.txt
	@$(offline) $(PY) -W ignore -m benchmarks.learner_speed

bench-sft: setup ## how fast supervised fine-tuning is, beside TRL's trainer
	@$(PY) -c "import trl" 2>/dev/null || $(PY) -m pip install -q --no-deps $(PIP_FLAGS) -r requirements/bench.txt
	@$(offline) $(PY) -W ignore -m benchmarks.sft_speed

bench-eval: setup ## how long grading, intervals and a report take
	@$(offline) $(PY) -m benchmarks.eval_speed

bench-memory: setup ## the doctor's estimate of memory beside the measured peak
	@$(offline) $(PY) -W ignore -m benchmarks.memory_fit

golden: setup ## record the loss curves of the named settings anew
	@$(offline) $(PY) -m tests.learner.golden

tiny-model: setup ## train the embedded tiny model anew
	@$(offline) $(PY) -m grpo_gsm8k.tiny.train

docs: setup ## the site of docs/, in site/
	@$(PY) -c "import material" 2>/dev/null || $(PY) -m pip install -q --no-deps $(PIP_FLAGS) -r requirements/docs.txt
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet # the variable silences an advertisement, not a warning

docs-reference: setup ## write docs/configuration.md and docs/metrics.md anew
	@$(PY) -m scripts.config_reference
	@$(PY) -m scripts.metrics_reference

docker-tools: ## install what docker-lint and docker-check need, from Debian's packages (as root)
	@apt-get update -qq
	@DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	  buildah debootstrap docker-compose iproute2 python3-venv shellcheck

docker-lint: ## compose file, Dockerfiles and shell scripts
	@bash docker/check.sh --lint

docker-check: ## the same, and build and run the CPU image without a Docker daemon (as root)
	@bash docker/check.sh --all

docker-images: ## both images, with a Docker daemon
	@docker build -f docker/Dockerfile.cpu --build-arg GIT_SHA=$$(git rev-parse HEAD) --build-arg PIP_EXTRA_INDEX_URL -t grpo-gsm8k-cpu .
	@docker build -f docker/Dockerfile --build-arg GIT_SHA=$$(git rev-parse HEAD) -t grpo-gsm8k .

clean: ## remove .venv and caches, keep artifacts
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
