# Two doors for a new user: `make demo` and `make test`. Both set up .venv first.
# A machine with an NVIDIA GPU: TORCH_CUDA=1 make demo
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check setup clean

demo: setup
	$(BIN)/pythia-tools demo

# A file's tests stay in one process; more than four processes want more memory than they save time.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

check: setup
	$(BIN)/python scripts/bootstrap.py --extras dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_floors.py

setup:
	@$(PYTHON) scripts/bootstrap.py

clean:
	rm -rf $(VENV) build dist *.egg-info
