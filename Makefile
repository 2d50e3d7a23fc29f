# make demo   footage -> dataset -> HTML report, out of a fresh checkout     make install   .venv alone
# make test   the whole suite, with the TensorFlow environment               make lint      ruff and mypy
# make soak   the long proofs at full count                                  make clean     all but the sources
# make templates   parameters of the Flex Templates, from the parsers        make audit     known vulnerabilities

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := local,endpoint,gcp,metrics,export,hygiene,ocr,evaluate,train,demo,dev,transnet
STAMP := $(VENV)/.installed

# TensorFlow 2.16 ends at Python 3.12, and wants numpy 1: an environment of its own, for one test.
TF_VENV := .venv-tensorflow
TF_STAMP := $(TF_VENV)/.installed
TF_PYTHON ?= $(shell for p in $(PYTHON) python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)

# Built as a pair: bump both, then `make constraints`.
TORCH := 2.13.0
TORCHVISION := 0.28.0
PYTHONS ?= python3.11 python3.12 python3.13

DEMO := demo-output

# Test files side by side; each has models of its own in memory, some 2 GB.
JOBS ?= 2

.PHONY: install test lint demo soak constraints clean tensorflow templates audit

install: $(STAMP)

$(STAMP): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make install PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "python3 -m venv is missing; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "installing into $(VENV): some 6.5 GB, as torch from the registry carries CUDA; this takes a few minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

test: install tensorflow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m 'not slow and not soak'

# The one test that needs it skips, and says why, where this can't be built: that must not fail the suite.
tensorflow:
	@$(MAKE) --no-print-directory $(TF_STAMP) || echo "no TensorFlow environment: its test will be skipped"

$(TF_STAMP): setup.py constraints-tensorflow.txt
	@test -n '$(TF_PYTHON)' || { echo "TensorFlow 2.16 needs Python 3.11 or 3.12, and none is here"; exit 1; }
	@echo "installing TensorFlow into $(TF_VENV): some 2 GB"
	rm -rf $(TF_VENV) build
	$(TF_PYTHON) -m venv $(TF_VENV)
	$(TF_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-tensorflow.txt '.[tensorflow]'
	@touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: install
	$(BIN)/python -m beam_pipeline.demo $(DEMO)/footage
	$(BIN)/reelscribe curate --input $(DEMO)/footage --output $(DEMO)/dataset
	$(BIN)/reelscribe report $(DEMO)/dataset --html $(DEMO)/report.html
	@echo
	@echo "dataset: $(abspath $(DEMO)/dataset)"
	@echo "report:  $(abspath $(DEMO)/report.html)"

soak: install
	$(BIN)/python -m pytest -m 'slow or soak' --timeout 7200

templates: install
	$(BIN)/python -m beam_pipeline.template_spec curate --metadata > templates/curate.json
	$(BIN)/python -m beam_pipeline.template_spec watch --metadata > templates/watch.json

audit: install
	sh templates/audit.sh $(BIN)/python

constraints:
	$(PYTHON) .ci/constraints.py --extras $(EXTRAS) --pair torch=$(TORCH) torchvision=$(TORCHVISION) -- $(PYTHONS) > constraints.new
	mv constraints.new constraints.txt
	$(PYTHON) .ci/constraints.py --extras tensorflow -- $(filter-out python3.13,$(PYTHONS)) > constraints.new
	mv constraints.new constraints-tensorflow.txt

clean:
	rm -rf $(VENV) $(TF_VENV) $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
