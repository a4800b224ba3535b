"""The text format, judged by the parser of Prometheus' own Python library, and by promtool."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from config_manager.config.metrics import Counter, Family, Histogram, Sampled, number, text

PROMTOOL = shutil.which("promtool")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def read(families: Sequence[Family]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample, by name and labels."""
    parsed = list(text_string_to_metric_families(text(families)))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parsed
        for sample in family.samples
    }


def test_a_counter_counts_each_set_of_labels_by_itself() -> None:
    counter = Counter("asked_total", "Requests.", ("method", "status"), known=[("GET", "200")])
    assert read([counter]) == {("asked_total", (("method", "GET"), ("status", "200"))): 0}
    for status in ("200", "404", "200"):
        counter.inc("GET", status)
    assert (counter.value("GET", "200"), counter.value("PUT", "200")) == (2, 0)
    assert read([counter]) == {
        ("asked_total", (("method", "GET"), ("status", "200"))): 2,
        ("asked_total", (("method", "GET"), ("status", "404"))): 1,
    }


def test_an_observation_lies_in_each_bucket_whose_bound_it_does_not_pass() -> None:
    seconds = Histogram("took_seconds", "How long.", (0.5, 1.0, 2.5))
    for value in (0.5, 0.6, 1.0, 99.0):
        seconds.observe(value)
    assert read([seconds]) == {
        ("took_seconds_bucket", (("le", "0.5"),)): 1,
        ("took_seconds_bucket", (("le", "1"),)): 3,
        ("took_seconds_bucket", (("le", "2.5"),)): 3,
        ("took_seconds_bucket", (("le", "+Inf"),)): 4,
        ("took_seconds_sum", ()): 101.1,
        ("took_seconds_count", ()): 4,
    }
    assert seconds.count() == 4


@given(st.lists(st.floats(0, 1e6), max_size=50), st.text("ab", max_size=1))
def test_whatever_is_observed_buckets_rise_to_the_count(values: list[float], label: str) -> None:
    bounds = (0.1, 1.0, 10.0, 1000.0)
    seconds = Histogram("took_seconds", "How long.", bounds, ("what",))
    for value in values:
        seconds.observe(value, label)
    found = read([seconds])
    for bound in bounds if values else ():
        labels = (("le", number(bound)), ("what", label))
        assert found["took_seconds_bucket", labels] == sum(value <= bound for value in values)
    if values:
        assert found["took_seconds_count", (("what", label),)] == len(values)
        assert math.isclose(found["took_seconds_sum", (("what", label),)], sum(values))


@given(TEXTS, TEXTS, st.floats())
def test_any_help_label_and_number_comes_through(about: str, value: str, held: float) -> None:
    shown = text([Sampled("held", about, {(value,): held}, ("what",))])
    (family,) = text_string_to_metric_families(shown)
    ((_, labels, found, *_),) = family.samples
    assert labels == {"what": value}
    assert found == held or math.isnan(found) == math.isnan(held) is True
    # the parser drops the white space around a help
    assert family.documentation.split() == about.split()


def test_what_would_be_no_series_is_refused_where_it_is_written() -> None:
    for name in ("Held", "held total", "1st", "", "held-total", "le"):
        with pytest.raises(ValueError, match="can't be the name"):
            Counter(name, "?")
        with pytest.raises(ValueError, match="can't be the name"):
            Counter("held", "?", (name,))
    with pytest.raises(ValueError, match="do not rise"):
        Histogram("took", "?", (1.0, 1.0))
    with pytest.raises(ValueError, match="do not rise"):
        Histogram("took", "?", (1.0, math.inf))
    counter = Counter("asked", "?", ("method",))
    seconds = Histogram("took", "?", (1.0,), ("method",))
    for labels in ((), ("GET", "200")):
        with pytest.raises(ValueError, match="has the labels"):
            counter.inc(*labels)
        with pytest.raises(ValueError, match="has the labels"):
            seconds.observe(1.0, *labels)
        with pytest.raises(ValueError, match="has the labels"):
            Sampled("held", "?", {labels: 1.0}, ("method",))


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (Debian: prometheus)")
def test_promtool_takes_every_kind_and_every_number() -> None:
    families: list[Family] = [
        Counter("asked_total", 'A "quoted" \\ one.', ("a",), known=[('\\ " \n',)]),
        Histogram("took_seconds", "How long.", (0.0005, 1.0, 300.0)),
        Sampled("held_bytes", "How\nmuch.", {("nan",): math.nan, ("inf",): -math.inf}, ("a",)),
        Sampled("nothing_bytes", "Without a series.", {}),
    ]
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text(families).encode(), capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
