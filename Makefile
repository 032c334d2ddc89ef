# Two commands: `make book` and `make test`. The others are listed by `make help`.
PYTHON  ?= python3
PROFILE ?= sample
URL     ?=
JOBS    ?= 2

VENV := .venv
BIN  := $(VENV)/bin
# Spinning threads of two libraries on few cores would wait for each other; see CONTRIBUTING.md.
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install book app test check results lab lint clean address

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PROFILE=sample|laptop|full decides how large the data are (sample)."
	@echo "  make results also takes search, shares and verification; JOBS=2 runs at the same time."

install: $(VENV)/.installed  ## create .venv with the pinned versions

$(VENV)/.installed: constraints.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else \
	  f'Python 3.11 to 3.13 is needed, this is {sys.version.split()[0]}: make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[book,test,graphs,text]'
	@touch $@

book: install  ## run all notebooks and build the book in _build/html
	@$(BIN)/python book/build.py --profile $(PROFILE)

app: install  ## the platform: compare models, play with them, fly through the movie space
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/streamlit run app/main.py --browser.gatherUsageStats false

test: install  ## the whole test suite
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2

check: install  ## open every page of the built book in Chromium: links, images, requests, layout
	@$(BIN)/python book/check.py

results: install  ## continue the records of PROFILE in results/, as far as they are not there
	@OMP_NUM_THREADS=1 $(BIN)/python -m nbrec.experiment --profile $(PROFILE) --folder results --jobs $(JOBS)

lab: install  ## the notebooks in JupyterLab
	NBREC_PROFILE=$(PROFILE) $(BIN)/jupyter lab notebooks

lint: install  ## style and types of the code, and no outputs in the notebooks
	@$(BIN)/ruff check nbrec tests app benchmarks book notebooks
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/nbstripout --keep-id --verify notebooks/*.ipynb

clean:  ## remove what was built; keeps .venv, data/ and runs/
	rm -rf _build .pytest_cache .ruff_cache .mypy_cache *.egg-info

address: install  ## make address URL=https://github.com/you/nbrec: set the public address everywhere
	@$(BIN)/python book/build.py --set-address $(URL)
