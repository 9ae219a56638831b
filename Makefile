# The two commands of a newcomer: `make demo` and `make test`. Everything is put into .venv; nothing else is changed.
.POSIX:

BIN = .venv/bin
# Decisions live here, without I/O: every branch of them is covered (docs/architecture.md, "pure").
PURE = proxy/lifecycle.py,proxy/destination.py,proxy/grants/*,proxy/http1/*,proxy/guard.py,proxy/clientkeys.py,proxy/routes.py,proxy/fields.py,proxy/query.py,proxy/globs.py,proxy/headers.py,proxy/injection.py,proxy/refusals.py,proxy/redact.py,proxy/forms.py,proxy/errors.py,proxy/stores/seal.py,proxy/stores/records.py
# What decides between two sockets: this is what is compiled (docs/adr/0007-compiled.md).
DATA_PATH = compiled work wire_corpus exchange_properties streaming relay replay repetition invariants canaries leaks \
    token_life reload listener metrics tracing http1 client_answer body upgrade upstream_connection upstream_tls attempt pool guard routes \
    clientkeys strangers headers injection rewrite refusals lifecycle source keeping store_life accesslog admin \
    inspector inspector_bodies inspector_fields inspector_members inspector_messages inspector_why names
# What has properties besides, which are tried with more examples there.
PROPERTIES = redact grants_login token_model redis_double

# How long each target is fuzzed.
SECONDS = 10

# Which tests run compiled; the long ones run as source, in test-long, and compiled too in `make nightly`.
COMPILED = not patches and not slow

# Tests start the program hundreds of times; where nothing may be kept, each would compile all of it anew.
KEEP = PYTHONDONTWRITEBYTECODE=

.PHONY: help venv demo newcomer pictures test types covered test-slow test-compiled test-long fuzz mutants nightly bench format clean

help:
	@echo 'make demo       install, then show the main job against embedded vendor APIs'
	@echo 'make pictures   take those of docs/images anew, from the tests of the page (needs Chromium)'
	@echo 'make newcomer   time the way from a clone to the first answer, in a folder of its own'
	@echo 'make test       install, then lint, check types, run every test with coverage'
	@echo 'make test-slow  test what takes longer (at most 8 minutes): test-compiled and test-long, side by side'
	@echo 'make test-compiled  compile the data path, test that thoroughly (needs gcc and the headers of Python)'
	@echo 'make test-long  run the long tests: fleets, kills, broken connections, a soak'
	@echo 'make fuzz       look for inputs that break something, 10 seconds for each target (SECONDS=600)'
	@echo 'make mutants    turn each defence off: do the tests of its case notice? (ARGS=--starred: the starred ones)'
	@echo 'make nightly    test-slow, ten times as long, fuzz, ten minutes for each target, and mutants'
	@echo 'make bench      install, then compare with nginx, HAProxy, Envoy and mitmproxy (half an hour; docs/performance.md)'
	@echo 'make format     let ruff format and mend what it can'
	@echo 'make clean      remove .venv and everything a run leaves behind'

venv: .venv/.made

.venv/.made:
	@python= without=; \
	for candidate in "$${PYTHON:-}" python3.13 python3.12 python3.11 python3; do \
	    [ -n "$$candidate" ] || continue; \
	    "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    "$$candidate" -c 'import ensurepip, venv' 2>/dev/null && python=$$candidate && break; \
	    without="$$without $$candidate"; \
	done; \
	if [ -z "$$python" ] && [ -n "$$without" ]; then \
	    echo "No venv or no ensurepip for$$without. Install it:" >&2; \
	    echo '  Debian, Ubuntu   apt-get install python3-venv' >&2; \
	    echo '  Fedora           dnf install python3 python3-pip' >&2; \
	    echo '  macOS            brew install python' >&2; \
	    exit 1; \
	fi; \
	if [ -z "$$python" ]; then \
	    echo 'Python 3.11 or newer is needed and was not found. Install it, or name it: make PYTHON=/path/to/python3' >&2; \
	    exit 1; \
	fi; \
	rm -rf .venv && "$$python" -m venv .venv
	@# Dependency groups (PEP 735) need pip 25.1.
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
	@touch $@

.venv/.installed: .venv/.made pyproject.toml
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable .
	@touch $@

.venv/.tested: .venv/.made pyproject.toml
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable . --group test
	@touch .venv/.installed $@

demo: .venv/.installed
	@$(BIN)/bearer-proxy demo
	@echo
	@echo 'Next, with a token of your own in API_TOKEN, for an API of your own:'
	@echo '    $(BIN)/bearer-proxy run --upstream https://api.example.com --token-env API_TOKEN --listen 127.0.0.1:8080'

newcomer: .venv/.made
	@$(BIN)/python -m tests.support.newcomer

# Tests leave them in .artefacts/screenshots.
pictures: .venv/.tested
	@$(BIN)/python -m pytest --quiet -m slow tests/test_inspector_live.py -k every_function
	@for pair in list-light-1280:list retried-light-1280:retried websocket-light-1280:websocket \
	    presentation-dark-400:narrow; do \
	    cp ".artefacts/screenshots/$${pair%%:*}.png" "docs/images/inspector-$${pair#*:}.png"; \
	done

test: .venv/.tested
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(MAKE) -j2 types covered

# It takes one processor for half a minute, and the tests wait for other things at times.
types: .venv/.tested
	@$(BIN)/mypy --no-error-summary

covered: .venv/.tested
	@mkdir -p .artefacts
	@$(BIN)/coverage erase
	@$(KEEP) $(BIN)/coverage run -m pytest --quiet --numprocesses=auto --dist=worksteal --junitxml=.artefacts/tests.xml
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --fail-under=95
	@$(BIN)/coverage report --include='$(PURE)' --fail-under=100
	@$(BIN)/python tests/support/skips.py .artefacts/tests.xml

# Side by side, since the long tests mostly wait.
test-slow: .venv/.tested
	@$(MAKE) -j2 test-compiled test-long

# Compiled code throws exceptions into coroutines with the old signature.
test-compiled: .venv/.tested
	@$(BIN)/python -m tests.support.compiled .artefacts/compiled/ours
	@cd .artefacts/compiled/ours && $(KEEP) BEARER_PROXY_TEST_COMPILED=1 PYTHONSAFEPATH=1 venv/bin/python -m pytest --quiet \
	    --numprocesses=auto --dist=worksteal --junitxml=../../compiled.xml -c $(CURDIR)/pyproject.toml --rootdir=$(CURDIR) \
	    --override-ini=pythonpath= -p no:cacheprovider -m '$(COMPILED)' --hypothesis-profile=thorough \
	    -W 'ignore:the (type, exc, tb) signature of throw() is deprecated:DeprecationWarning' \
	    $(DATA_PATH:%=$(CURDIR)/tests/test_%.py) $(PROPERTIES:%=$(CURDIR)/tests/test_%.py)
	@$(BIN)/python tests/support/skips.py .artefacts/compiled.xml

test-long: .venv/.tested
	@mkdir -p .artefacts
	@$(KEEP) $(BIN)/python -m pytest --quiet --numprocesses=4 --dist=load --maxschedchunk=1 -m slow --junitxml=.artefacts/long.xml
	@$(BIN)/python tests/support/skips.py .artefacts/long.xml

# Where atheris cannot be had the rest goes on, and says so; where CI=true that is a failure (tests/fuzz/__main__.py).
.venv/.fuzzing: .venv/.tested pyproject.toml
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --only-binary=atheris --group fuzz \
	    || echo 'atheris could not be installed.' >&2
	@touch $@

fuzz: .venv/.fuzzing
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

mutants: .venv/.tested
	@$(BIN)/python -m tests.support.mutants $(ARGS)

nightly:
	@BEARER_PROXY_TEST_TIMES=10 $(MAKE) test-slow COMPILED='not patches'
	@$(MAKE) fuzz SECONDS=600
	@$(MAKE) mutants
	@$(MAKE) bench ARGS='--smoke --only cpu'

# For example ARGS='--smoke', or ARGS='--only cpu --proxies ours,nginx --rounds 5'.
bench: .venv/.tested
	@$(BIN)/python -m tests.bench $(ARGS)

format: .venv/.tested
	@$(BIN)/ruff format --quiet
	@$(BIN)/ruff check --quiet --fix

clean:
	@rm -rf .venv .artefacts .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* build dist
	@find proxy tests -name __pycache__ -type d -prune -exec rm -rf {} +
