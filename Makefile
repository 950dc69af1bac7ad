# The two commands of the README: `make demo` and `make test`. Everything else serves them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test unit monitoring-test gateway-test lab-test soak mutation fuzz lint format docs bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade-strategy only-if-needed -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/dspark-ops lab demo --install-prerequisites

# Unit and contract tests first, then the same product on the real rehearsal pair. Many unit tests wait: on two cores
# those of the roles took 104 s with two workers and 85 s with four (2026-11-27).
test: unit monitoring-test lab-test

unit: setup
	$(BIN)/python -m tests.unit.exposure.programs
	$(BIN)/python -m pytest tests/unit tests/contract -m "not soak" -q -n 4 --dist worksteal

# The alerts, judged by the real promtool; then each made wrong in one way at a time, which a unit test of it must notice.
monitoring-test: setup
	$(BIN)/python -m tests.monitoring.rule_files --install-prerequisites
	$(BIN)/python -m pytest tests/monitoring -q --durations=10
	$(BIN)/python -m tests.monitoring.mutate

# The gateway's contract: LiteLLM from the product's lock and the machine's HAProxy, on loopback. Some minutes, and an
# environment of 750 MB once; a part of the soak, as long as `make test` is to end within 45 minutes.
gateway-test: setup
	$(BIN)/python -m tests.gateway.programs --install-prerequisites
	$(BIN)/python -m pytest tests/gateway -q --durations=10

lab-test: setup
	$(BIN)/dspark-ops lab up --install-prerequisites
	$(BIN)/python -m pytest tests/release tests/lab -m "(lab or release) and not soak" -q --durations=25

# What takes longer than a change should wait for: random kills, random harm to the fabric. Its dated result goes to
# docs/evidence/.
soak: setup gateway-test
	$(BIN)/dspark-ops lab up --install-prerequisites
	$(BIN)/python -m pytest tests/release tests/lab tests/unit/supervise -m soak -q -s

# Each rule of the doctor broken in turn; at least 98 % must be noticed by a fixture. Two minutes on one core.
mutation: setup
	$(BIN)/python -m tests.mutation.run $(if $(ONLY),--only $(ONLY))

# A million inputs to the parsers of what a host prints; some minutes on one core.
fuzz: setup
	$(BIN)/python -m tests.fuzz.run $(if $(SECONDS),--seconds $(SECONDS))

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/ansible-lint --offline --profile production playbooks

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup
	$(BIN)/python docs/generate.py

# Those with a site need the rehearsal pair: make bench SITE=path/to/site.yml
bench: setup
	$(BIN)/python benchmarks/help_latency.py
	$(BIN)/python benchmarks/doctor_sixteen.py
	$(BIN)/python benchmarks/predictable_flag.py
	$(BIN)/python benchmarks/bench_known_rate.py $(if $(VLLM),--vllm $(VLLM))
	$(if $(SITE),$(BIN)/python benchmarks/doctor_wall.py $(SITE))
	$(if $(SITE),$(BIN)/python benchmarks/fabric_show.py $(SITE))

clean:
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache
