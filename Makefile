# Everything happens in .venv at the project's root; nothing outside this folder is changed.
PYTHON  ?= python3.11
VENV    := .venv
BIN     := $(VENV)/bin
PY      := $(BIN)/python
MODELS  := models
GEMMA   := $(MODELS)/gemma-3-270m-q4_k_m.gguf
SMOLLM2 := $(MODELS)/SmolLM2-135M-Instruct.Q4_1.gguf
CPUS    := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
SOURCES := pyproject.toml CMakeLists.txt README.md $(wildcard native/src/*/* native/include/* vocabtailor_gguf/*.py vocabtailor_gguf/*/*.py vocabtailor_gguf/*/*/*.py vocabtailor_gguf/*/*/*.yaml vocabtailor_gguf/*/*/*.txt)

.PHONY: help demo test lint format install models tables bench clean FORCE

help:
	@echo "make demo    build, fetch Gemma 3 270M, split it, run it three ways side by side"
	@echo "make test    build, fetch the test models, run all tests and the linters"
	@echo "make lint    ruff, mypy, clang-format, compiler warnings as errors"
	@echo "make tables  write the tables and figures of README and docs from docs/results"
	@echo "make bench   measure against stock llama-cpp-python on this machine"

# llama.cpp is compiled here: let it use every core
export CMAKE_BUILD_PARALLEL_LEVEL := $(CPUS)

$(PY):
	@echo "== creating $(VENV)"
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -qq --upgrade pip

# compiled for this machine, in the way a probe finds; touched only when something was installed
$(VENV)/.llama: FORCE | $(PY)
	@$(PY) tools/install_llama.py tools/requirements.txt $@

FORCE:

$(VENV)/.deps: pyproject.toml tools/requirements.txt $(VENV)/.llama
	$(PY) -m pip install -qq -r tools/requirements.txt
	@touch $@

# an ordinary install, so that tests and users see the same files; only what changed is compiled again
$(VENV)/.native: $(VENV)/.deps $(SOURCES)
	@echo "== building libvocabtailor"
	$(PY) -m pip install -qq --no-build-isolation --no-deps --config-settings=cmake.define.VT_WERROR=ON .
	@touch $@

install: $(VENV)/.native

$(GEMMA): | $(VENV)/.deps
	$(PY) tools/fetch_models.py gemma $(MODELS)

$(SMOLLM2): | $(VENV)/.deps
	$(PY) tools/fetch_models.py smollm2 $(MODELS)

models: $(GEMMA) $(SMOLLM2)

demo: install $(GEMMA)
	$(PY) tools/demo.py $(GEMMA)

# threads that wait for work must not spin: other processes may run on the same cores
# a worker for each of up to four cores, for most tests compute with one thread
test: install models lint
	OMP_WAIT_POLICY=passive $(BIN)/pytest -n $(shell [ $(CPUS) -gt 4 ] && echo 4 || echo $(CPUS)) --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror native/src/*/* native/include/*.h native/examples/*.c tests/native/*.cpp

format: $(VENV)/.deps
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i native/src/*/* native/include/*.h native/examples/*.c tests/native/*.cpp

# the tables and figures of README and docs from docs/results
tables: install
	$(PY) tools/doc_tables.py

bench: install models
	@for model in $(GEMMA) $(SMOLLM2); do \
		$(BIN)/vocabtailor split $$model --force && \
		$(BIN)/vocabtailor bench -m $${model%.gguf}.core.gguf --baseline $$model || exit 1; \
	done

clean:
	rm -rf build $(VENV) $(MODELS)
