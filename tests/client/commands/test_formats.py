"""A configuration as other programs read it."""

from __future__ import annotations

import json
import subprocess
import tomllib
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from config_manager.client.commands.formats import fill_in, render, to_environment
from config_manager.config.errors import SettingsInvalid

CONFIG: dict[str, Any] = {
    "model": "base.en",
    "url": None,
    "fast": True,
    "pad_ms": 300,
    "ratio": 0.5,
    "hosts": ["a", "b c"],
    "nested": {"deep": None, "x": "it's $HOME; `ls`\n"},
}

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def test_text_is_as_it_is_and_the_rest_is_json() -> None:
    assert to_environment("tts-worker", {"a": "x y", "b": True, "c": None, "d": [1]}) == {
        "TTS_WORKER_A": "x y",
        "TTS_WORKER_B": "true",
        "TTS_WORKER_C": "",
        "TTS_WORKER_D": "[1]",
    }
    assert to_environment("tts-worker", {"a": "x"}, "") == {"A": "x"}


@given(texts)
def test_json_toml_and_yaml_read_back_as_what_went_in(text: str) -> None:
    config = {**CONFIG, "text": text}
    assert json.loads(render("s", config, "json")) == config
    assert yaml.safe_load(render("s", config, "yaml")) == config
    without_null = {k: v for k, v in config.items() if v is not None}
    assert tomllib.loads(render("s", config, "toml")) == {
        **without_null,
        "nested": {"x": CONFIG["nested"]["x"]},
    }


@pytest.mark.parametrize("text", ["it's", "$HOME", "`id`", "a\nb", '"', "", "x; rm -rf /", "\\"])
def test_a_shell_that_sources_it_gets_the_very_text(text: str) -> None:
    script = render("stt", {"value": text}, "env") + 'printf %s "$STT_VALUE"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True, timeout=10)
    assert done.stdout.decode() == text


def test_a_template_is_filled_in_and_a_dollar_can_be_said() -> None:
    assert fill_in("${model} ${fast} $$5 ${hosts}", CONFIG) == 'base.en true $5 ["a","b c"]'


@pytest.mark.parametrize(("template", "named"), [("${nothing}", "'nothing'"), ("$ 5", "dollar")])
def test_a_template_that_does_not_fit_says_what_to_do(template: str, named: str) -> None:
    with pytest.raises(SettingsInvalid, match=named):
        fill_in(template, CONFIG)
