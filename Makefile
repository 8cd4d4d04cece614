# make demo | make test      list all targets with: make help
# Settings: PYTHON=python3.12  ACCELERATOR=cpu|cuda  PIP_FLAGS="arguments of pip install"  GRPO_VENV=folder
# ARGS="learner.lr=1e-4 ..." adds overrides to demo, pipeline and recipes
PYTHON      ?= python3
PIP_FLAGS   ?=
GRPO_VENV   ?= .venv
# The installed kind is the default: after `make setup ACCELERATOR=cuda`, `make test` also uses CUDA.
ACCELERATOR ?= $(or $(shell cut -d' ' -f1 '$(GRPO_VENV)/installed' 2>/dev/null),cpu)
PY          := "$(GRPO_VENV)/bin/python"

# Variables of the caller's shell must not change what runs here.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS MKL_NUM_THREADS
# exec: a shell in between would not forward SIGTERM, and a run would end without its last checkpoint.
offline := exec env HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
# vLLM's sampler compiles a helper with g++ even in eager mode. CPU runs do not use it, so they need no compiler.
ifeq ($(ACCELERATOR),cpu)
offline += TORCHDYNAMO_DISABLE=1
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo pipeline recipes test test-all test-fast lint format typecheck golden history soak under-fire audit check-models \
	tiny-model clean gpu-check bench-async bench-learner bench-sft bench-gpu bench-grpo bench-eval bench-grading bench-memory \
	bench-publish bench-pool bench-late bench-stale methods scale-check scaling-tables docs docs-reference \
	docker-tools docker-lint docker-check docker-images

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

setup: ## install the pinned requirements into .venv (does nothing if they are installed)
	@PYTHON='$(PYTHON)' PIP_FLAGS='$(PIP_FLAGS)' GRPO_VENV='$(GRPO_VENV)' sh scripts/install.sh '$(ACCELERATOR)'

demo: setup ## complete policy-gradient run on two CPU cores, without a network
	@$(offline) $(PY) cli.py command=policy_gradient preset=cpu_demo $(ARGS)

pipeline: setup ## data, fine-tuning, policy gradient, evaluation and report on two CPU cores, without a network
	@$(offline) $(PY) cli.py command=pipeline preset=cpu_demo $(ARGS)

recipes: setup ## the seed documents' recipes at scale=cpu, each to a report, without a network
	@$(offline) $(PY) -m scripts.run_recipes $(ARGS)

test: setup ## all tests, and what the slowest took
	@$(offline) $(PY) -m pytest --durations=30 --durations-min=20

test-all: setup ## all tests, and all of the many like cases of which `make test` runs one or two
	@ALL_CASES=1 $(offline) $(PY) -m pytest

test-fast: setup ## tests without the slow ones
	@$(offline) $(PY) -m pytest -m "not slow"

lint: setup ## check style and formatting
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: setup ## fix style and formatting
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

audit: ## look up the pinned versions in the list of known vulnerabilities (needs a network)
	@set -e; for list in requirements/*.txt; do pipx run pip-audit==2.9.0 --no-deps --disable-pip -r "$$list"; done

typecheck: setup ## mypy in strict mode
	@$(PY) -m mypy

gpu-check: setup ## check a machine with a GPU in at most ten minutes, before the first run on it
	@$(offline) $(PY) -W ignore -m benchmarks.gpu_check $(ARGS)

bench-async: setup ## benchmark: time saved by overlapping generation and learning
	@$(offline) $(PY) -m benchmarks.async_speed

bench-learner: setup ## benchmark: speed and memory of the learner, compared with TRL's loss
	@$(PY) -c "import trl" 2>/dev/null || $(PY) -m pip install -q --no-deps $(PIP_FLAGS) -r requirements/bench.txt
	@$(offline) $(PY) -W ignore -m benchmarks.learner_speed

bench-sft: setup ## benchmark: speed of supervised fine-tuning, compared with TRL's trainer
	@$(PY) -c "import trl" 2>/dev/null || $(PY) -m pip install -q --no-deps $(PIP_FLAGS) -r requirements/bench.txt
	@$(offline) $(PY) -W ignore -m benchmarks.sft_speed

bench-gpu: setup ## benchmark: speed, utilization and memory of the learner by model; ARGS=--gate compares with the baseline
	@$(offline) $(PY) -W ignore -m benchmarks.gpu_speed $(ARGS)

bench-grpo: setup ## benchmark: whole updates beside TRL's GRPOTrainer, in turns
	@$(PY) -c "import trl" 2>/dev/null || $(PY) -m pip install -q --no-deps $(PIP_FLAGS) -r requirements/bench.txt
	@$(offline) $(PY) -W ignore -m benchmarks.grpo_speed $(ARGS)

bench-eval: setup ## benchmark: duration of grading, intervals and a report
	@$(offline) $(PY) -m benchmarks.eval_speed

bench-grading: setup ## benchmark: grading of expressions, compared with an update of the learner
	@$(offline) $(PY) -W ignore -m benchmarks.grading_expressions

bench-memory: setup ## benchmark: the doctor's memory estimate, compared with the measured peak
	@$(offline) $(PY) -W ignore -m benchmarks.memory_fit

scale-check: setup ## engines that come and go, several learner ranks, and a Ray cluster of two nodes with its faults
	@ALL_CASES=1 $(offline) $(PY) -m pytest tests/learner/test_ranks.py tests/learner/test_rank_failures.py tests/orchestrator/test_rank_runs.py \
		tests/actor/test_tensor_parallel.py tests/orchestrator/test_scale_runs.py tests/cluster $(ARGS)

bench-pool: setup ## benchmark: completions per second that the orchestrator can pass on from 64 engines
	@$(offline) $(PY) -m benchmarks.pool_speed $(ARGS)

bench-publish: setup ## benchmark: seconds from trained weights to weights in the engine
	@$(offline) $(PY) -m benchmarks.publish_speed $(ARGS)

bench-late: setup ## benchmark: waiting for late completions, dropping them, or going on with them
	@$(offline) $(PY) -m benchmarks.late_policy $(ARGS)

bench-stale: setup ## benchmark: what off-policy corrections do for stale samples
	@$(offline) $(PY) -W ignore -m benchmarks.stale_corrections $(ARGS)

methods: setup ## compare every method on two tasks, with three seeds and learning rates each (hours)
	@$(offline) $(PY) -W ignore -m benchmarks.compare_methods $(ARGS)

soak: setup ## kill random processes of training, fine-tuning, evaluation: nothing lost? KILLS=50 ENGINE=scripted|vllm
	@$(offline) $(PY) -m tests.soak --kills $(or $(KILLS),50) --engine $(or $(ENGINE),scripted) $(ARGS)

under-fire: setup ## train the demo with faults inside its processes, compare its accuracy with undisturbed runs
	@$(offline) $(PY) -m tests.soak.under_fire $(ARGS)

history: setup ## record the curves of five seeds again, from which a run may not drift
	@$(offline) $(PY) -m tests.history.record

golden: setup ## record the golden loss curves again
	@$(offline) $(PY) -m tests.learner.golden

check-models: setup ## compare every supported architecture with Hugging Face, write docs/models.md
	@$(offline) $(PY) -W ignore -m tests.learner.model_zoo

tiny-model: setup ## train the embedded tiny model again
	@$(offline) $(PY) -m grpo_gsm8k.tiny.train

docs: setup ## build the site of docs/ in site/
	@$(PY) -c "import material" 2>/dev/null || $(PY) -m pip install -q --no-deps $(PIP_FLAGS) -r requirements/docs.txt
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet # the variable hides an advertisement, not a warning

scaling-tables: setup ## compute the predictions in docs/scaling.md again (ARGS=--check: only compare them)
	@$(offline) $(PY) -m scripts.scaling_reference $(ARGS)

docs-reference: setup ## generate docs/configuration.md, methods.md, metrics.md and diagnoses.md
	@$(PY) -m scripts.config_reference
	@$(PY) -m scripts.methods_reference
	@$(PY) -m scripts.metrics_reference
	@$(PY) -m scripts.diagnoses_reference

docker-tools: ## install the tools of docker-lint and docker-check from Debian packages (as root)
	@apt-get update -qq
	@DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	  buildah debootstrap docker-compose iproute2 python3-venv shellcheck

docker-lint: ## check compose file, Dockerfiles and shell scripts
	@bash docker/check.sh --lint

docker-check: ## docker-lint, and build and run the CPU image without a Docker daemon (as root)
	@bash docker/check.sh --all

docker-images: ## build both images with a Docker daemon
	@docker build -f docker/Dockerfile.cpu --build-arg GIT_SHA=$$(git rev-parse HEAD) --build-arg PIP_EXTRA_INDEX_URL -t grpo-gsm8k-cpu .
	@docker build -f docker/Dockerfile --build-arg GIT_SHA=$$(git rev-parse HEAD) -t grpo-gsm8k .

clean: ## remove .venv and caches, but not artifacts
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
