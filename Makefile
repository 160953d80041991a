# `make run` and `make test` set up all they need on a fresh Debian; see README.md.
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test test-vm test-browser lint unit lab bench setup setup-test setup-vm setup-browser setup-lab setup-bench setup-peers clean

run: setup
	@exec $(BIN)/hauswart run $(ARGS)

test: setup-test lint unit

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit:
	$(BIN)/pytest -n 2 --dist loadgroup $(PYTEST_ARGS)

test-vm: setup-vm
	$(BIN)/pytest -m vm tests/test_machine.py $(PYTEST_ARGS)

test-browser: setup-browser
	$(BIN)/pytest tests/test_browser.py $(PYTEST_ARGS)

lab: setup-lab
	$(BIN)/python -m tests.lab $(ARGS)

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
