# Each target does its own set-up in .venv; `make help` lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
WORKERS ?= 2

.PHONY: help venv demo test test-all test-emulated lint format bench build clean

help:
	@echo "make demo      compile the digits CNN, run it, print accuracy, sizes and counts"
	@echo "make test      the tests (without slow and device tests); make test-all: all of them"
	@echo "make test-emulated  those of code for AVX-512 in an emulator, where the processor has none"
	@echo "make lint      format, lint and types; make format: repair what a tool can"
	@echo "make bench     the digits CNN beside onnxruntime: accuracy, latency, bytes, every kernel against its oracle"
	@echo "make build     a wheel in dist/"
	@echo "make venv      only the set-up; PYTHON=... chooses the interpreter"

venv: .venv/installed

.venv/installed: pyproject.toml CMakeLists.txt $(wildcard csrc/*.cc csrc/*.h)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv is missing: apt-get install python3-venv" >&2; exit 1; }
	@command -v c++ >/dev/null || { echo "a C++ compiler is missing: apt-get install g++" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: venv
	$(BIN)/python examples/demo.py

test: venv
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow and not device"

test-all: venv
	$(BIN)/python -m pytest

# Bochs, Linux and what starts it: see tests/emulator/bochs.py.
test-emulated: venv
	TVM_FFN_EMULATE=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not slow" tests/schedules/test_kernels.py tests/e2e/test_emulated.py

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files -z '*.cc' '*.h' | xargs -0 -r $(BIN)/clang-format --dry-run --Werror
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	git ls-files -z '*.cc' '*.h' | xargs -0 -r $(BIN)/clang-format -i

bench: venv
	TVM_NUM_THREADS=1 $(BIN)/python -m benchmarks.report_card examples/digits.onnx --evaluation examples/digits_test.npz \
	    --calibration examples/digits_calibration.npz --labels examples/digits_labels.csv

build: venv
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf build dist .venv
