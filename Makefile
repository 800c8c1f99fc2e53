# Everything here sets itself up: a fresh machine needs make and Python 3.11 or 3.12, nothing else.
PYTHON ?= $(firstword $(foreach p,python3.12 python3.11 python3,$(if $(shell $(p) -c 'import sys; print(1 if (3, 11) <= sys.version_info < (3, 13) else "")' 2>/dev/null),$(p))))
BIN := .venv/bin
STAMP := .venv/.installed
export DO_NOT_TRACK = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export NO_ALBUMENTATIONS_UPDATE = 1

.PHONY: setup simd demo test test-all check format pictures lock audit
.DELETE_ON_ERROR:

setup: $(STAMP)

# A stamp names the lock that was installed; a second run finds it newer than both files and does nothing.
$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "winnow needs Python 3.11 or 3.12: install one, or name it with make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the pinned requirements into .venv (about 7 GB on Linux, a few minutes)" >&2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)
	@$(BIN)/winnow demo

# Two processes with one thread each: with two threads each they wait for one another, and take a fifth longer.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile

test-all: test
	$(BIN)/python -m pytest -q -m slow -n 2 --dist loadfile

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# README's pictures, of the report of a demo that has run.
pictures: $(STAMP)
	$(BIN)/python docs/pictures.py

# pillow-simd for decoder = "pillow-simd", beside Pillow and under a name of its own, so that what strangers sent is
# still decoded by Pillow. It is built here, from source: a C compiler and the headers of libjpeg and zlib are needed.
simd: $(STAMP)
	@rm -rf .venv/simd
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-binary :all: --target .venv/simd pillow-simd==12.1.1.post0
	@site=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))') && rm -rf "$$site/pillow_simd" && mv .venv/simd/PIL "$$site/pillow_simd" && rm -r .venv/simd
	@$(BIN)/python -c 'from pipeline.images import decoders; print(decoders.identity("pillow-simd"))'

# Pins and hashes only: no index address is written, so the lock works with any registry.
lock: $(STAMP)
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --output-file requirements.lock

# Known vulnerabilities of what the lock pins. pip-audit has an environment of its own, and asks the package index about
# each; --strict, since it says "none found" of packages that it was told nothing about. Where nobody can be asked, it is
# one line, and no success.
audit: $(STAMP)
	@test -x .venv/audit/bin/pip-audit || { $(PYTHON) -m venv .venv/audit && .venv/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit; }
	@$(BIN)/python tests/known_vulnerabilities.py .venv/audit/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock
