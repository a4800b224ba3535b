# config-manager: `./just` alone runs what CI runs; `./just RECIPE` for one thing.
set positional-arguments := true
export PATH := justfile_directory() / ".venv/bin" + ":" + env("PATH")

# what CI runs: format, lint, types, import rules, tests
default: check

# start everything for a developer: server, broker, sample services; prints what to try
serve *args:
    @exec config-manager serve --dev "$@"

# a tour that ends by itself: a change, its trace, a broker killed and revived, a start offline
demo *args:
    @exec python -m config_manager.api.commands.demo "$@"

# follow or read a service's configuration: `./just client run --state DIR --service S --mqtt-url URL`
client *args:
    @exec config-manager client "$@"

# the whole suite, on real Mosquitto and SQLCipher
test *args:
    @pytest -m "not torture" -n 3 --dist loadscope --no-loadscope-reorder "$@"

# format (check only), lint, types, import rules, then the tests
check: lint test

# everything `check` does but the tests
lint:
    ruff format --check .
    ruff check .
    mypy
    mypy tests bench examples
    lint-imports

# rewrite the code in the house's format
format:
    ruff format .
    ruff check --fix .

# how fast it is: each figure beside its goal and its reference, from the same run
bench *args:
    @python -m bench "$@"

# processes that get killed; `./just torture --short` is the form CI runs
torture *args:
    @python -m tests.torture "$@"

# build the wheel and look inside
wheel:
    python -m build --wheel --outdir dist .
    python -m zipfile -l dist/config_manager-*.whl

# the pages as a site in build/docs/html: every link is checked, and nothing is loaded from outside
docs to="build/docs" of=".":
    @sphinx-build -M html "$2" "$1" -c docs --fail-on-warning --keep-going --quiet
    @echo "$1/html/index.html"
