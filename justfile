# config-manager: `./just` alone runs what CI runs; `./just RECIPE` for one thing.
set positional-arguments := true
export PATH := justfile_directory() / ".venv/bin" + ":" + env("PATH")

# what CI runs: format, lint, types, import rules, tests
[group('check')]
default: check

# start everything for a developer: server, broker, sample services; prints what to try
[group('try')]
serve *args:
    @exec config-manager serve --dev "$@"

# a tour that ends by itself: a change, its trace, a broker killed and revived, a start offline
[group('try')]
demo *args:
    @exec python -m config_manager.api.commands.demo "$@"

# follow or read a service's configuration: `./just client run --state DIR --service S --mqtt-url URL`
[group('try')]
client *args:
    @exec config-manager client "$@"

# format (check only), lint, types, import rules, then the tests
[group('check')]
check: lint test

# everything `check` does but the tests
[group('check')]
lint:
    ruff format --check .
    ruff check .
    mypy
    mypy tests bench examples
    pyright
    lint-imports

# the whole suite, on real Mosquitto and SQLCipher
[group('check')]
test *args:
    @# compiled once: else each of a thousand processes that the tests start may do it anew
    @python -m compileall -q actors api client config storage
    @PYTHONDONTWRITEBYTECODE= pytest -m "not torture" -n 4 --dist loadscope --no-loadscope-reorder "$@"

# processes that get killed; `./just torture --short` is the form CI runs
[group('check')]
torture *args:
    @python -m tests.torture "$@"

# rewrite the code in the house's format
[group('work')]
format:
    ruff format .
    ruff check --fix .

# how fast it is: each figure beside its goal and its reference, from the same run
[group('work')]
bench *args:
    @python -m bench "$@"

# build the wheel and look inside
[group('work')]
wheel:
    python -m build --wheel --outdir dist .
    python -m zipfile -l dist/config_manager-*.whl

# the pages as a site in build/docs/html: every link is checked, and nothing is loaded from outside
[group('work')]
docs to="build/docs" of=".":
    @sphinx-build -M html "$2" "$1" -c docs --fail-on-warning --keep-going --quiet
    @echo "$1/html/index.html"
