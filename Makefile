# The two commands: `make demo` shows the product, `make test` proves it. Both start from a bare Python 3.11+.
VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= python3

.PHONY: demo test lint assets clean

$(VENV)/.demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.demo
	$(BIN)/momentkit demo

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# How the bundled weights are made: encoders, then a head of each system, near 20 to 80 minutes of one core each, into runs/.
assets: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m momentkit.train.tiny_encoders -o src/momentkit/assets --seed 0
	for model in flashvtg ld_detr momentdiff diffusion_vmr map_diffusion; do \
		OMP_NUM_THREADS=1 $(BIN)/python -m momentkit.train.bundle --model $$model || exit 1; \
	done

clean:
	rm -rf $(VENV) build dist *.egg-info
