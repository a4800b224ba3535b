"""`deploy/` for Prometheus and Grafana: the alerts, the dashboard, and what docs/metrics.md says, held to what
`GET /metrics` really answers."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
import yaml

from config_manager.api.resources.metrics import families
from config_manager.api.rest.request import Api
from config_manager.config.metrics import Family
from tests.e2e.test_devices import enrol
from tests.kit.asgi import running
from tests.kit.processes import MOSQUITTO, Processes, eventually, free_port, workshop

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus-rules.yml"
PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
_NAME = re.compile(r"\b(?:config_manager|process)_[a-z_]+")
_SELECTOR = re.compile(r"((?:config_manager|process)_[a-z_]+)\{([^}]*)\}")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPED = re.compile(r"by \(([^)]*)\)")
_GIVEN_BY_PROMETHEUS = {"job", "instance", "le"}

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (Debian: prometheus)")


@pytest.fixture(scope="module")
def ours() -> dict[str, Family]:
    """Every series' name → what it is of."""

    async def asked() -> list[Family]:
        with tempfile.TemporaryDirectory() as folder:
            async with running(Path(folder)) as system:
                return families(Api(system, dev=False))

    found: dict[str, Family] = {}
    for family in trio.run(asked):
        histogram = family.kind == "histogram"
        for suffix in ("_bucket", "_sum", "_count") if histogram else ("",):
            found[family.name + suffix] = family
    return found


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    return read


class Query(NamedTuple):
    panel: str
    expression: str


def queries(dashboard: dict[str, Any]) -> Iterator[Query]:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield Query(panel["title"], target["expr"])
    for one in dashboard["annotations"]["list"]:
        yield Query(one["name"], one["expr"])


def asks_only_for(expression: str, ours: dict[str, Family]) -> None:
    """Every series and every label of an expression is one of ours."""
    names = set(_NAME.findall(expression))
    assert names <= ours.keys(), expression
    labels = {label for name in names for label in ours[name].labels} | _GIVEN_BY_PROMETHEUS
    for name, selector in _SELECTOR.findall(expression):
        given = {*ours[name].labels, *_GIVEN_BY_PROMETHEUS}
        assert set(_LABEL.findall(selector)) <= given, expression
    for grouped in _GROUPED.findall(expression):
        assert {label.strip() for label in grouped.split(",")} <= labels, expression


def test_alerts_and_panels_ask_for_what_we_answer(
    ours: dict[str, Family], rules: list[dict[str, Any]], dashboard: dict[str, Any]
) -> None:
    for rule in rules:
        if rule["expr"].startswith("up{"):
            continue  # of Prometheus itself
        asks_only_for(rule["expr"], ours)
    asked = list(queries(dashboard))
    assert len(asked) > len(dashboard["panels"])
    for one in asked:
        asks_only_for(one.expression, ours)
        assert 'job="$job"' in one.expression, one.panel


def test_every_panel_has_its_own_place_and_asks_the_source_that_was_chosen(
    dashboard: dict[str, Any],
) -> None:
    (source,) = dashboard["__inputs"]
    taken: dict[tuple[int, int], str] = {}
    ids = {panel["id"] for panel in dashboard["panels"]}
    assert len(ids) == len(dashboard["panels"]) == 13
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"]["uid"] == f"${{{source['name']}}}", panel["title"]


@needs_promtool
def test_promtool_takes_the_alerts_and_each_fires_when_it_should_and_not_before(
    rules: list[dict[str, Any]],
) -> None:
    told = promtool("check", "rules", RULES.name)
    assert "11 rules found" in told
    promtool("test", "rules", "prometheus-rules-test.yml")
    stories = yaml.safe_load((DEPLOY / "prometheus-rules-test.yml").read_text())["tests"]
    alerts = {rule["alert"] for rule in rules if "alert" in rule}
    assert len(alerts) == 10
    asked = [test for story in stories for test in story.get("alert_rule_test", ())]
    assert {test["alertname"] for test in asked if "exp_alerts" in test} == alerts
    assert {test["alertname"] for test in asked if "exp_alerts" not in test} == alerts


def promtool(*arguments: str) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], cwd=DEPLOY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


# ── docs/metrics.md ────────────────────────────────────────────────────────────────────────────


def rows(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    below = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in below.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_has_every_metric_as_it_is(ours: dict[str, Family]) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    told = {
        row[0].strip("`"): (row[1], tuple(re.findall(r"`(\w+)`", row[2])))
        for row in rows(page, "Metrics")
    }
    assert told == {one.name: (one.kind, one.labels) for one in ours.values()}


def test_the_page_has_every_alert_and_what_to_do(rules: list[dict[str, Any]]) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    told = {row[0].strip("`"): (row[1], row[2]) for row in rows(page, "Alerts")}
    assert told == {
        rule["alert"]: (rule["labels"]["severity"], rule.get("for", "at once"))
        for rule in rules
        if "alert" in rule
    }
    for alert in told:
        assert f"\n### {alert}\n" in page


# ── a real Prometheus ──────────────────────────────────────────────────────────────────────────


class Scraper:
    """A Prometheus with our rules, which scrapes one server every second."""

    def __init__(self, processes: Processes, directory: Path, url: str, token: str) -> None:
        assert PROMETHEUS is not None
        directory.mkdir()
        (directory / "token").write_text(token)
        config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(RULES)]
        (job,) = config["scrape_configs"]
        job |= {
            "scrape_interval": "1s",
            "authorization": {"credentials_file": str(directory / "token")},
            "static_configs": [{"targets": [url.removeprefix("http://")]}],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        processes.start(
            [
                PROMETHEUS,
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ]
        )
        self._http = processes.client(f"http://127.0.0.1:{port}")

    def ask(self, expression: str) -> list[dict[str, Any]]:
        answer = self._http.get("/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def value(self, expression: str) -> float:
        """NaN before there is one."""
        found = self.ask(expression)
        return float(found[0]["value"][1]) if found else math.nan

    def get(self, path: str) -> Any:
        return self._http.get(path).json()["data"]


@pytest.mark.torture
@pytest.mark.skipif(
    MOSQUITTO is None or PROMETHEUS is None, reason="needs mosquitto and prometheus"
)
def test_a_real_prometheus_scrapes_and_every_query_has_an_answer(
    dashboard: dict[str, Any], rules: list[dict[str, Any]]
) -> None:
    with workshop() as (processes, directory):
        broker = processes.broker(directory / "broker")
        server = processes.server(directory / "data", broker.url)
        made = server.http.post("/api/v1/tokens", json={"name": "prometheus", "role": "read"})
        prometheus = Scraper(processes, directory / "prometheus", server.url, made.json()["token"])
        server.put("door", {"n": 0})
        for name in ("ada", "bob"):
            enrol(processes, server, directory / name)
            processes.follow(directory / name, "door", broker.url).event("applied")
        eventually(
            lambda: prometheus.value('sum(config_manager_instances{state="in-line"})') == 2,
            within=30,
            what="Prometheus saw both instances in line",
        )
        numbers = itertools.count(1)

        def unanswered() -> list[Query]:
            server.put("door", {"n": next(numbers)})
            server.http.get("/api/v1/config/door")
            server.http.put("/api/v1/config/door", content=b"{")
            return [one for one in queries(dashboard) if not asked_for(prometheus, one.expression)]

        eventually(
            lambda: not unanswered(),
            within=30,
            every=1,
            what="every query of the dashboard has data",
        )
        (group,) = prometheus.get("/api/v1/rules")["groups"]
        assert {rule["name"] for rule in group["rules"]} == {
            rule.get("alert") or rule["record"] for rule in rules
        }
        assert [rule["health"] for rule in group["rules"]] == ["ok"] * len(rules)
        assert prometheus.get("/api/v1/alerts")["alerts"] == []
        eventually(
            lambda: (
                prometheus.value("config_manager_apply_duration_seconds_count")
                >= 2 * prometheus.value('config_manager_writes_total{action="put"} - 1')
            ),
            within=30,
            what="each instance was timed with each change",
        )
        assert 0 < prometheus.value("config_manager:apply_duration_seconds:p99_5m") < 5

        server.process.kill_alone()
        eventually(
            lambda: (
                "ConfigManagerDown"
                in {
                    one["labels"]["alertname"] for one in prometheus.get("/api/v1/alerts")["alerts"]
                }
            ),
            within=30,
            what="the alert is pending",
        )


def asked_for(prometheus: Scraper, expression: str) -> list[dict[str, Any]]:
    """As Grafana fills the variables in."""
    return prometheus.ask(
        expression.replace("$__rate_interval", "1m").replace("$job", "config-manager")
    )
