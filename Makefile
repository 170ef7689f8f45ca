# Two commands on a fresh machine: `make demo` and `make test`. Each makes its own .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench real accuracy clean

demo: $(VENV)/demo.stamp
	$(BIN)/gnomon demo --out out/demo

# Idle threads that spin, of a kernel or of OpenBLAS, would take the cores from the other workers.
test: export OMP_WAIT_POLICY = PASSIVE
test: export OPENBLAS_NUM_THREADS = 1
# Where Python is told to keep no bytecode, every command that a test starts compiles all modules again.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/lint.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# As `gnomon` itself sets it.
bench: export OMP_WAIT_POLICY = PASSIVE
bench: $(VENV)/test.stamp
	$(BIN)/python tests/benchmarks/run.py

real: $(VENV)/demo.stamp
	$(BIN)/python tests/benchmarks/accuracy/real.py

# Photographs and twin in one table, docs/accuracy.md: a quarter of an hour.
accuracy: export OMP_WAIT_POLICY = PASSIVE
accuracy: $(VENV)/demo.stamp
	$(BIN)/python tests/benchmarks/accuracy/run.py

clean:
	rm -rf $(VENV) out

$(VENV)/python.stamp:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/demo.stamp: pyproject.toml $(VENV)/python.stamp
	$(BIN)/python -m pip install -q -e .
	touch $@

$(VENV)/test.stamp: pyproject.toml $(VENV)/python.stamp
	$(BIN)/python -m pip install -q -e '.[test]'
	touch $(VENV)/demo.stamp $@

$(VENV)/lint.stamp: pyproject.toml $(VENV)/python.stamp
	$(BIN)/python -m pip install -q -e '.[test,lint]'
	touch $(VENV)/demo.stamp $(VENV)/test.stamp $@
