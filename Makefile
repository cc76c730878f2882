# Everything starts here: `make demo` shows SPRO, `make test` tests it. Both make their own environment in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SEED ?= 0
OUT ?= runs/demo
RECIPE ?= recipes/qwen-image/references/preference.yaml
HUB ?= https://huggingface.co

.PHONY: demo references test lint docs world bench serve install clean
.DEFAULT_GOAL := help

help:           ## what there is
	@grep -E '^[a-z]+: *.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s :

install: $(VENV)/installed  ## the environment, from constraints.txt

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11, which diffusers and transformers need; use make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,lint]'
	@touch $@

demo: install   ## the whole of SPRO on the embedded world; SEED=1 OUT=runs/other for another
	$(BIN)/spro-hf run recipes/tiny/spro.yaml --out $(OUT) --seed $(SEED)

serve: install  ## keep the demo's local Hub up
	$(BIN)/spro-hf hub serve $(OUT)

references: install  ## draw reference pictures and push them; RECIPE=... HUB=... NAMESPACE=you
	$(BIN)/spro-hf run $(RECIPE) --out runs/references-$(basename $(notdir $(RECIPE))) --hub $(HUB) $(if $(NAMESPACE),--set namespace=$(NAMESPACE))

test: install   ## all tests, in two processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: install   ## style and errors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: install   ## the README's tables and commands against the repository
	$(BIN)/python docs/check.py

world: install  ## train the embedded world's models again from nothing (about two hours)
	$(BIN)/python -m spro_hf.tiny.make

bench: install  ## recording and training steps beside the bare pipeline, and peak memory (some minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.environment

clean:          ## remove the environment and all runs
	rm -rf $(VENV) runs
