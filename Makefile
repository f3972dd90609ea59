# make help lists the targets. Each sets up .venv by itself when it is missing.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.bench-installed

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# A teacher that fits digits and clearly leads the student (docs/results.md says how it was chosen).
DEMO := -S dataset=digits -S image_size=12 -S crop_padding=1 -S horizontal_flip=false \
	-S teacher=resnet18 -S teacher_epochs=6 -S teacher_batch_size=32 \
	-S epochs=4 -S batch_size=32 -S alpha=1 -S temperature=2 -S 'seeds=[0,1,2,3]'

DIGITS := --dataset digits --image-size 12 --crop-padding 1 --horizontal-flip false \
	--teacher resnet18 --teacher-epochs 6 --teacher-batch-size 32 \
	--epochs 4 --batch-size 32 --alpha 1 --temperature 2

.DEFAULT_GOAL := help
.PHONY: help setup demo compare repro test test-fast test-all faults lint bench models format lock

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 11

# What `dvc exp run --temp` cannot do, said before it fails in its own words.
CHECK_PLACE := @LC_ALL=C; git rev-parse --verify --quiet HEAD >/dev/null || { \
	echo "make demo: dvc exp run needs a git repository with a commit: clone the project" >&2; exit 1; }; \
	case "$(CURDIR)" in *[!\ -~]*) \
	echo "make demo: dvc exp run --temp needs a path of ASCII letters alone: move the project" >&2; exit 1; esac

setup: $(INSTALLED)  ## build .venv with everything at pinned versions

$(INSTALLED): requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

demo: $(INSTALLED)  ## run the whole pipeline on handwritten digits: no download, about 3 minutes
	$(CHECK_PLACE)
	@dvc exp remove --quiet demo 2>/dev/null || true
	dvc exp run --temp --name demo $(DEMO)
	@dvc get --quiet --force --rev demo --out report/demo.html . report/index.html
	@echo
	@python -c "import dvc.api; print(dvc.api.read('metrics/summary.md', rev='demo'))"
	@echo "Look at next:"
	@echo "  report/demo.html                 the report: open it in a browser"
	@echo "  dvc exp show --only-changed      the experiment beside your work tree"
	@echo "  make repro                       the same on CIFAR-10: about an hour on two cores"
	@echo "  make compare                     all methods on digits, 5 seeds each"
	@echo "  README.md                        recipes: own alpha, models, images, few labels, sweeps"
	@echo "(dvc is in $(VENV)/bin: . $(VENV)/bin/activate)"

compare: $(INSTALLED)  ## compare all methods on digits with 5 seeds; COMPARE= for further options
	python -m distillation $(DIGITS) --seeds '[0,1,2,3,4]' --experiment all methods $(COMPARE)

repro: $(INSTALLED)  ## run the pipeline with params.yaml as it stands: CIFAR-10
	dvc repro

# A file's tests go to one worker, files in the order that tests/conftest.py gives them.
PYTEST := python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(BENCH_INSTALLED)  ## run the tests, offline, on two workers: about 5 minutes
	$(PYTEST)

test-fast: $(BENCH_INSTALLED)  ## run those without dvc, browser, whole comparisons: about 1½ minutes
	$(PYTEST) -m "not full and not slow and not faults"

test-all: $(BENCH_INSTALLED)  ## run the tests and the full cross products
	$(PYTEST) -m "not faults"

SEED ?= $(shell date +%s)
faults: $(BENCH_INSTALLED)  ## try kills, damage, full disks, hostile input; SEED= repeats a run
	FAULTS_SEED=$(SEED) python -m pytest -n $(WORKERS) --dist load -m faults tests/pipeline/faults

lint: $(INSTALLED)  ## check style and types
	ruff check .
	ruff format --check .
	mypy

bench: $(BENCH_INSTALLED)  ## measure speed against other systems; BENCH=--quick for under 5 minutes
	python -m benchmarks $(BENCH)

models: $(INSTALLED)  ## try all of timm's families; writes the table in docs/models.md, 6 minutes
	python -m benchmarks.families

$(BENCH_INSTALLED): requirements-bench.txt $(INSTALLED)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-bench.txt
	@touch $@

format: $(INSTALLED)  ## put the code into its style
	ruff check --fix .
	ruff format .

lock: $(INSTALLED)  ## pin the newest versions pyproject.toml allows in requirements.txt (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links --upgrade -q -o requirements.txt
