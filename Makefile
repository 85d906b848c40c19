# The two commands of the README are `make demo` and `make test`; each sets itself up.
# PYTHON=... chooses the interpreter (3.10 to 3.13), ARGS=... is handed to pytest,
# which runs in two processes (WORKERS= for one).

PYTHON ?=
ADDONS_PYTHON ?=
ARGS ?=
# Two processes: most tests keep one core busy. A file stays in one of them, for what its
# tests share; tests/conftest.py says which come first.
WORKERS ?= -n 2 --dist loadfile --no-loadscope-reorder
# Compiling by XLA took most of the time of some tests, so it optimizes less for them;
# with XLA_FLAGS= as for users.
QUICKLY := --xla_backend_optimization_level=0
# An unknown flag ends the process: this one is for the TensorFlow that it was tried with.
# Asked of the shell: make remembers that there was no such file before it was installed.
EMITTERS = $(if $(shell ls -d $(VENV)/lib/*/site-packages/tensorflow-2.21.* 2>/dev/null),--xla_cpu_use_fusion_emitters=false)
VENV := .venv
ADDONS_VENV := .venv-addons
BIN := $(VENV)/bin

.PHONY: help venv venv-addons demo test slow lint test-addons clean

help:
	@echo "make demo         train, score and export a three-stage cascade on generated figures; draw poses"
	@echo "make test         the test suite"
	@echo "make slow         the tests that take longer"
	@echo "make lint         ruff"
	@echo "make test-addons  the suite on TensorFlow 2.15 with tensorflow-addons (Python 3.11 or 3.10)"
	@echo "make clean        remove what the commands above made; never touches runs/"

venv:
	@PYTHON="$(PYTHON)" .ci/environment $(VENV) dev 3.13 3.12 3.11 3.10

# No newer Python has a build of tensorflow-addons or of the TensorFlow it needs.
venv-addons:
	@PYTHON="$(ADDONS_PYTHON)" .ci/environment $(ADDONS_VENV) addons,dev 3.11 3.10

# The commands of the README on figures that are drawn first, and a model that ships on a
# photo; each goes on where it was stopped.
demo: venv
	$(BIN)/deeppose-prepare --dataset=generated --source=demo/figures --output=demo/data
	$(BIN)/deeppose-train --data=demo/data --run=demo/run --recipe=demo --stages=3
	$(BIN)/deeppose-evaluate --model=demo/run --data=demo/data --split=test --output=demo/evaluation
	$(BIN)/deeppose-predict --model=demo/run --input='demo/figures/test/*0.jpg' --output=demo/poses
	$(BIN)/deeppose-export --model=demo/run --output=demo/served
	$(BIN)/deeppose-tflite --model=demo/run --data=demo/data --limit=50 --output=demo/pose.tflite --overwrite
	$(BIN)/deeppose-predict --model=upper_body --boxes=face --input=docs/images/astronaut.jpg --output=demo/photo
	@echo "See demo/photo/astronaut.jpg.pose.png. On a photo of yours: $(BIN)/deeppose-predict --model=full_body --input=photo.jpg --output=poses"

test: export XLA_FLAGS ?= $(QUICKLY) $(EMITTERS)
test: venv
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

slow: venv
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The import comes first so that a broken tensorflow-addons fails instead of skipping its tests.
test-addons: export XLA_FLAGS ?= $(QUICKLY)
test-addons: venv-addons
	TF_CPP_MIN_LOG_LEVEL=3 $(ADDONS_VENV)/bin/python -W ignore -c "import tensorflow_addons"
	$(ADDONS_VENV)/bin/python -m pytest $(WORKERS) $(ARGS)

clean:
	rm -rf $(VENV) $(ADDONS_VENV) $(VENV).lock $(ADDONS_VENV).lock
	rm -rf demo build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
