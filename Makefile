# Every Parameter. `make` alone lists what there is.
# Works with GNU make 3.81 (macOS) and newer. Windows: see SETUP.md for the plain commands.

PYTHON = python3
VENV = .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.full-finetuning-installed
LESSON =
LAB_ARGS =
WORKERS = 2
NOTEBOOK = notebooks/01_concepts.ipynb
SUBMITTED = submitted
CHECK_ARGS =

# Tests use what is in this folder, whatever the reader's own settings are.
OFFLINE = HF_HUB_OFFLINE=1 HF_EVALUATE_OFFLINE=1 FINETUNING_PROFILE=reduced

# Tests that run at the same time share the cores: with more threads than cores they mostly wait for each other.
SHARE = OMP_NUM_THREADS=$$(( (`getconf _NPROCESSORS_ONLN` + $(WORKERS) - 1) / $(WORKERS) ))

# A module's tests share its fixtures, so they stay together; the longest begin first (tests/conftest.py).
PARALLEL = -n $(WORKERS) --dist loadscope --no-loadscope-reorder

# Notebooks that passed here and have not changed need not run again; CI always runs all, as `make test ALL=1` does.
ALL =
UNCHANGED = $(if $(ALL)$(CI),,--skip-unchanged)

.PHONY: help install-full-finetuning lab fresh test notebooks doctor data memory-tables benchmark check-exercises classroom-bundle install-from-bundle lint clean site site-serve pictures links test-browser gpu-check gpu-wheels

help:
	@echo "make lab                      install where needed, then open your own copy of lesson 01; LESSON=02 opens another"
	@echo "make fresh LESSON=02          a new copy of that lesson; yours is kept under another name"
	@echo "make test                     install where needed, then run the tests, and the notebooks (ALL=1: unchanged too)"
	@echo "make install-full-finetuning  make .venv and install the tested versions (2 GB)"
	@echo "make test-browser             the site and JupyterLab in Chromium, which has to be there"
	@echo "make doctor                   what this machine has, and which profile suits it"
	@echo "make notebooks                execute the notebooks in place, on the reduced profile"
	@echo "make data                     rebuild everything under data/"
	@echo "make memory-tables            predicted against measured memory, in tables"
	@echo "make benchmark                time something: BENCHMARK=loop_overhead, recipes, plain_recipe or pretraining_speed"
	@echo "make check-exercises          a table of a room's notebooks: NOTEBOOK=notebooks/02_....ipynb SUBMITTED=folder"
	@echo "make classroom-bundle         gather all that a room without a network needs: PROFILE=laptop BUNDLE=folder"
	@echo "make install-from-bundle      set this folder up from such a BUNDLE=folder, without a network"
	@echo "make gpu-check                the course on a CUDA GPU, under eight minutes, without a network"
	@echo "make gpu-wheels               the packages for that, for a machine that has torch: WHEELS=folder"
	@echo "make site                     build the course as a web site in site/_build/html"
	@echo "make site-serve               build it and show it on this machine"
	@echo "make links REPOSITORY=o/n    buttons for Colab, Kaggle, Binder and Codespaces; none takes them away"
	@echo "make pictures                 draw the lessons' diagrams from their sources"
	@echo "make lint                     check style and format, notebooks too"
	@echo "make clean                    remove .venv and caches"
	@echo ""
	@echo "Another Python:               make lab PYTHON=python3.12"

install-full-finetuning: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@"$(BIN)/python" -c 'import pip' 2>/dev/null || { \
	  command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	    echo "There is no '$(PYTHON)' here. Install Python 3.11 to 3.14, or name the one you have:" >&2; \
	    echo "  make install-full-finetuning PYTHON=python3.12" >&2; \
	    exit 1; }; \
	  "$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || { \
	    echo "Python 3.11 to 3.14 is needed; '$(PYTHON)' is `"$(PYTHON)" --version 2>&1`. Name another one:" >&2; \
	    echo "  make install-full-finetuning PYTHON=python3.12" >&2; \
	    exit 1; }; \
	  "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu:" >&2; \
	    echo "  sudo apt install python3-venv" >&2; \
	    exit 1; }; \
	  "$(PYTHON)" -m venv --clear "$(VENV)"; \
	}
	"$(BIN)/python" -m pip install -c constraints.txt pip
	"$(BIN)/python" -m pip install -c constraints.txt --group full-finetuning -e .
	@touch "$(STAMP)"

# my-lessons/ is the learner's own copy: helpers/lab.py
lab: $(STAMP)
	@exec "$(BIN)/python" -m helpers.lab --lesson "$(or $(LESSON),01)" $(LAB_ARGS)

fresh: $(STAMP)
	@"$(BIN)/python" -m helpers.lab --fresh "$(LESSON)"

# Both halves run, whatever the first one says; the status is that of the worse. nbval is for the second half alone:
# importing it takes three seconds.
test: $(STAMP)
	@trap 'exit 130' INT; tests=0; notebooks=0; \
	$(OFFLINE) $(SHARE) "$(BIN)/python" -m pytest tests -p no:nbval $(PARALLEL) || tests=$$?; \
	$(OFFLINE) $(SHARE) "$(BIN)/python" -m pytest --nbval-lax --nbval-current-env notebooks $(UNCHANGED) $(PARALLEL) \
	  || notebooks=$$?; \
	say() { if [ $$2 = 0 ]; then echo "$$1: passed"; else echo "$$1: failed (pytest's status $$2, above)"; fi; }; \
	say tests $$tests; say notebooks $$notebooks; \
	[ $$tests -gt $$notebooks ] && exit $$tests; exit $$notebooks

notebooks: $(STAMP)
	$(OFFLINE) "$(BIN)/python" tools/execute.py

# Needs nothing installed: outside .venv it uses $(PYTHON) and says what is missing.
doctor:
	@if [ -x "$(BIN)/python" ]; then "$(BIN)/python" -m helpers.doctor; else "$(PYTHON)" -m helpers.doctor; fi

data: $(STAMP)
	"$(BIN)/python" data/build/build.py

memory-tables: $(STAMP)
	$(OFFLINE) "$(BIN)/python" tools/memory_tables.py

# A program of tools/ with its options; those that measure a program of scripts/ find it on the path.
BENCHMARK = loop_overhead

benchmark: $(STAMP)
	@set -- $(BENCHMARK); name=$$1; shift; $(OFFLINE) PYTHONPATH=scripts "$(BIN)/python" "tools/$$name.py" "$$@"

check-exercises: $(STAMP)
	@$(OFFLINE) "$(BIN)/python" tools/check_exercises.py "$(NOTEBOOK)" "$(SUBMITTED)" $(CHECK_ARGS)

# With .venv, or else with $(PYTHON): a machine with a GPU often has a torch of its own, and no network (SETUP.md).
gpu-check:
	@python="$(BIN)/python"; [ -x "$$python" ] || python="$(PYTHON)"; status=0; \
	$(OFFLINE) "$$python" -m pytest -m gpu tests/test_gpu.py -rs -p no:cacheprovider || status=$$?; \
	"$$python" tools/gpu_check.py --write-tables && exit $$status

gpu-wheels: $(STAMP)
	"$(BIN)/python" tools/gpu_wheels.py "$(or $(filter-out here none,$(WHEELS)),gpu-wheels)"

# One folder for a USB stick; WHEELS=none leaves the packages out.
PROFILE = laptop
BUNDLE = classroom-bundle
WHEELS = here

classroom-bundle: $(STAMP)
	"$(BIN)/python" tools/classroom_bundle.py make "$(BUNDLE)" --profile "$(PROFILE)" --wheels $(WHEELS)

install-from-bundle:
	"$(PYTHON)" tools/classroom_bundle.py install "$(BUNDLE)"

# Beside the group full-finetuning, Sphinx and its theme; npm gives Mermaid's file the first time.
SITE_STAMP = $(VENV)/.site-installed

$(SITE_STAMP): $(STAMP)
	"$(BIN)/python" -m pip install -c constraints.txt --group site
	@touch "$(SITE_STAMP)"

site: $(SITE_STAMP)
	"$(BIN)/python" site/build.py

site-serve: $(SITE_STAMP)
	"$(BIN)/python" site/build.py --serve

# -rs: what is missing here is said.
test-browser: $(SITE_STAMP)
	$(OFFLINE) "$(BIN)/python" -m pytest -m browser tests -rs

links: $(STAMP)
	"$(BIN)/python" site/hosted.py "$(REPOSITORY)"

pictures: $(SITE_STAMP)
	"$(BIN)/python" site/pictures.py

lint: $(STAMP)
	"$(BIN)/python" -m ruff check .
	"$(BIN)/python" -m ruff format --check .

clean:
	rm -rf "$(VENV)" .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -path ./my-lessons -prune -o -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +
