# `make run` and `make test` set up all they need on a fresh Debian; see README.md.
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test test-vm test-browser lint unit lab dataset bench setup setup-test setup-vm setup-browser setup-lab setup-bench setup-peers clean

run: setup
	@exec $(BIN)/hauswart run $(ARGS)

test: setup-test lint unit

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tests that judge, load or measure this machine would see what runs beside them: they come last, one by one.
unit:
	@failed=0; \
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not lab and not slow" $(PYTEST_ARGS) || [ $$? = 5 ] || failed=1; \
	$(BIN)/pytest -m "lab or slow" $(PYTEST_ARGS) || [ $$? = 5 ] || failed=1; \
	exit $$failed

test-vm: setup-vm
	$(BIN)/pytest -m vm tests/test_machine.py $(PYTEST_ARGS)

test-browser: setup-browser
	$(BIN)/pytest tests/test_browser.py $(PYTEST_ARGS)

lab: setup-lab
	$(BIN)/python -m tests.lab $(ARGS)

dataset: setup-lab
	@failed=0; \
	$(BIN)/python -m tests.lab record --both-sides $(ARGS) || failed=1; \
	$(BIN)/python -m tests.lab publish || failed=1; \
	exit $$failed

bench: setup-bench
	$(BIN)/python -m tests.bench $(ARGS)

setup:
	@sh setup.sh run $(VENV)

setup-test:
	@sh setup.sh test $(VENV)

setup-vm:
	@sh setup.sh vm $(VENV)

setup-browser:
	@sh setup.sh browser $(VENV)

setup-lab:
	@sh setup.sh lab $(VENV)

setup-bench:
	@sh setup.sh bench $(VENV)

setup-peers:
	@sh setup.sh peers $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info
