"""The sample catalogue, field by field, and what is said to whoever gets one wrong."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from config_manager.config.catalogue import (
    Catalogue,
    Effective,
    ModelShape,
    ServiceSettings,
    setting,
)
from config_manager.config.errors import InvalidValues
from config_manager.config.names import is_key, parse_service
from config_manager.config.services import SAMPLE_CATALOGUE
from tests.kit.documents import STEADY, json_values

STT, TTS, ROUTER = "stt-worker", "tts-worker", "router"
LLM, MEMORY, WAKE = "llm-worker", "memory-worker", "wake-activation"
SERVICES = (LLM, MEMORY, ROUTER, STT, TTS, WAKE)


def errors_of(service: str, values: dict[str, Any]) -> dict[str, str]:
    """Pointer → what is allowed; empty where the values are taken."""
    return dict(shape_of(service).errors(values))


def shape_of(service: str) -> ModelShape:
    shape = SAMPLE_CATALOGUE.shape(service)
    assert shape is not None
    return shape


def schema_of(service: str) -> dict[str, Any]:
    return shape_of(service).schema


def fields() -> list[tuple[str, str]]:
    return [(s, key) for s in SERVICES for key in schema_of(s)["properties"]]


# service, key, what is taken at the edges, what is refused just beyond, what is said then
EDGES: list[tuple[str, str, list[Any], list[Any], str]] = [
    (LLM, "llm_provider", ["openai", "anthropic", "ollama"], ["OpenAI", "", None, 1],
     "one of openai, anthropic, ollama"),
    (LLM, "openai_model", ["x", "x" * 100], ["", "x" * 101, None], "a string of 1 to 100 characters"),
    (LLM, "rag_enabled", [True, False], ["true", 0, 1, None], "true or false"),
    (LLM, "llm_timeout_sec", [1, 1.0, 120, 120.0], [0.999, 120.001, "30", None, True],
     "a number from 1 to 120 (s)"),
    (MEMORY, "character_name", ["x", "é" * 50], ["", "x" * 51, 1], "a string of 1 to 50 characters"),
    (MEMORY, "rag_strategy", ["hybrid", "semantic", "keyword"], ["none", "", None, 1],
     "one of hybrid, semantic, keyword"),
    (MEMORY, "memory_dir", ["/", "/a/b", "//x"], ["", "a", "./a", "~", None], "an absolute path"),
    (MEMORY, "memory_file", ["a", "-", "..a", "a" * 300],
     ["", ".", "..", "a/b", "/a", "a\n", "\na", "a b", "é", None],
     "a file name of letters, digits, '_', '-' and '.'"),
    (MEMORY, "character_dir", ["/"], ["", "a", 1], "an absolute path"),
    (MEMORY, "embed_model", ["x", "x" * 200], ["", "x" * 201, None],
     "a string of 1 to 200 characters"),
    (MEMORY, "memory_top_k", [1, 20], [0, 21, 1.0, 5.5, "5", True, None], "an integer from 1 to 20"),
    (ROUTER, "router_llm_tts_stream", [True, False], [1, None], "true or false"),
    (ROUTER, "router_stream_min_chars", [1, 200], [0, 501, 2.0, None],
     "an integer from 1 to 500 (chars)"),
    (ROUTER, "router_stream_max_chars", [30, 1000], [0, 1001, "200"],
     "an integer from 1 to 1000 (chars)"),
    (ROUTER, "router_stream_boundary_only", [True, False], ["no"], "true or false"),
    (ROUTER, "router_stream_boundary_regex", ["", "x" * 200, r"[.!?]\s"], ["x" * 201, 1, None],
     "a regular expression of at most 200 characters"),
    (ROUTER, "router_wake_window_sec", [1, 60], [0.99, 60.01, False, None],
     "a number from 1 to 60 (s)"),
    (ROUTER, "router_wake_ack_enabled", [True, False], [0], "true or false"),
    (ROUTER, "router_wake_ack_text", ["", "x" * 100], ["x" * 101, None],
     "a string of at most 100 characters"),
    (ROUTER, "router_wake_ack_choices", ["", "x" * 500], ["x" * 501, ["Hmm?"]],
     "a string of at most 500 characters"),
    (ROUTER, "router_live_mode_default", [True, False], [None], "true or false"),
    (ROUTER, "router_live_mode_enter_phrase", ["x", "x" * 100], ["", "x" * 101],
     "a string of 1 to 100 characters"),
    (ROUTER, "router_live_mode_exit_phrase", ["x", "x" * 100], ["", "x" * 101],
     "a string of 1 to 100 characters"),
    (STT, "whisper_model", ["tiny", "base.en", "large-v3"], ["large-v4", "Base", None, 3],
     ("one of tiny, tiny.en, base, base.en, small, small.en, medium, medium.en, large, large-v2, "
     "large-v3")),
    (STT, "stt_backend", ["whisper", "openai"], ["Whisper", None], "one of whisper, ws, openai"),
    (STT, "ws_url", [None, "ws://h", "wss://h:1/x"], [1, []], "a ws:// or wss:// URL, or null"),
    (STT, "streaming_partials", [True, False], ["yes"], "true or false"),
    (STT, "vad_threshold", [0, 0.0, 1, 1.0], [-0.001, 1.001, "0.5", True, None],
     "a number from 0 to 1"),
    (STT, "vad_speech_pad_ms", [0, 1000], [-1, 1001, 0.5], "an integer from 0 to 1000 (ms)"),
    (STT, "vad_silence_duration_ms", [0, 2000], [-1, 2001], "an integer from 0 to 2000 (ms)"),
    (STT, "sample_rate", [1, 16000, 2**53], [0, -1, 16000.0], "an integer over 0 (Hz)"),
    (STT, "channels", [1, 2], [0, 3, True], "an integer from 1 to 2"),
    (TTS, "tts_provider", ["piper", "elevenlabs"], ["", "Piper"], "one of piper, elevenlabs"),
    (TTS, "piper_voice", ["x", "x" * 200], ["", "x" * 201], "a string of 1 to 200 characters"),
    (TTS, "volume_percent", [0, 200], [-1, 201, 99.9], "an integer from 0 to 200 (%)"),
    (TTS, "tts_streaming", [True, False], [None], "true or false"),
    (TTS, "tts_pipeline", [True, False], [None], "true or false"),
    (TTS, "tts_concurrency", [1, 10], [0, 11], "an integer from 1 to 10"),
    (TTS, "tts_aggregate", [True, False], [None], "true or false"),
    (TTS, "tts_aggregate_timeout_sec", [0.1, 10], [0.099, 10.001], "a number from 0.1 to 10 (s)"),
    (TTS, "tts_aggregate_debounce_ms", [0, 5000], [-1, 5001], "an integer from 0 to 5000 (ms)"),
    (TTS, "tts_wake_cache_enable", [True, False], [None], "true or false"),
    (TTS, "tts_wake_cache_dir", ["x", "x" * 500], ["", "x" * 501],
     "a string of 1 to 500 characters"),
    (TTS, "tts_wake_cache_max", [0, 1000], [-1, 1001], "an integer from 0 to 1000 (files)"),
    (TTS, "eleven_api_base", ["http://h", "https://h:1/v1"], [None, 1], "an http:// or https:// URL"),
    (TTS, "eleven_voice_id", ["", "x" * 200], ["x" * 201], "a string of at most 200 characters"),
    (TTS, "eleven_model_id", ["x", "x" * 100], ["", "x" * 101], "a string of 1 to 100 characters"),
    (TTS, "eleven_optimize_streaming", [0, 3], [-1, 4], "an integer from 0 to 3"),
    (WAKE, "wake_detection_threshold", [0, 1], [-0.01, 1.01], "a number from 0 to 1"),
    (WAKE, "wake_model_path", ["/m"], ["m", ""], "an absolute path"),
    (WAKE, "wake_min_retrigger_sec", [0.1, 5], [0.09, 5.01], "a number from 0.1 to 5 (s)"),
    (WAKE, "wake_speex_noise_suppression", [True, False], [1], "true or false"),
    (WAKE, "wake_vad_threshold", [0, 1], [-1, 2], "a number from 0 to 1"),
    (WAKE, "wake_energy_boost_factor", [0.5, 3], [0.49, 3.01], "a number from 0.5 to 3"),
]  # fmt: skip
SECRETS = {(LLM, "openai_api_key"), (TTS, "eleven_api_key")}
SAYS_MORE = {"memory_dir", "character_dir", "wake_model_path"}
"""Of these, text that is not allowed is told what was expected in its own words."""


def test_every_field_of_every_service_stands_in_the_table_below() -> None:
    assert {(service, key) for service, key, *_ in EDGES} | SECRETS == set(fields())


@pytest.mark.parametrize(
    ("service", "key", "taken"), [(s, key, taken) for s, key, taken, _, _ in EDGES]
)
def test_each_field_takes_its_edges(service: str, key: str, taken: list[Any]) -> None:
    assert [value for value in taken if errors_of(service, {key: value})] == []


@pytest.mark.parametrize(
    ("service", "key", "refused", "allowed"),
    [(s, key, no, allowed) for s, key, _, no, allowed in EDGES],
)
def test_each_field_refuses_what_is_just_beyond_and_says_what_it_takes(
    service: str, key: str, refused: list[Any], allowed: str
) -> None:
    for value in refused:
        said = errors_of(service, {key: value})
        assert list(said) == [f"/{key}"], value
        detail = said[f"/{key}"]
        if key in SAYS_MORE and isinstance(value, str):
            assert detail.startswith("expected an absolute path")
        else:
            assert detail == f"expected {allowed}", value


@pytest.mark.parametrize(("service", "key"), fields())
@pytest.mark.parametrize("value", [{}, [], {"a": 1}, [1]], ids=str)
def test_no_field_takes_a_list_or_an_object(service: str, key: str, value: object) -> None:
    assert list(errors_of(service, {key: value})) == [f"/{key}"]


@pytest.mark.parametrize("service", SERVICES)
def test_the_defaults_are_valid_and_so_is_nothing_at_all(service: str) -> None:
    config, defaulted = shape_of(service).effective({})
    assert errors_of(service, config) == errors_of(service, {}) == {}
    assert tuple(config) == defaulted
    assert shape_of(service).effective(config) == Effective(config, ())
    assert json.loads(json.dumps(config)) == config


@pytest.mark.parametrize("service", SERVICES)
def test_an_unknown_key_is_named_beside_those_that_there_are(service: str) -> None:
    [(where, detail)] = errors_of(service, {"zzzzzz": 1}).items()
    assert where == "/zzzzzz"
    assert detail.startswith("unknown key. The keys: ")
    for key in shape_of(service).effective({}).config:
        assert key in detail


def test_a_misspelt_key_is_told_which_one_was_meant() -> None:
    detail = errors_of(STT, {"wisper_model": "tiny"})["/wisper_model"]
    assert detail.startswith("unknown key; did you mean whisper_model? The keys: whisper_model, ")


@pytest.mark.parametrize("key", ["", "a/b", "m~n", "WHISPER_MODEL", "é\n"])
def test_an_odd_key_is_pointed_at_as_rfc_6901_does(key: str) -> None:
    [where] = errors_of(STT, {key: 1})
    assert where == "/" + key.replace("~", "~0").replace("/", "~1")


def test_every_wrong_field_is_named_not_just_the_first() -> None:
    values = {"whisper_model": "huge", "channels": 9, "sample_rate": 8000, "speed": 1}
    assert set(errors_of(STT, values)) == {"/whisper_model", "/channels", "/speed"}


def test_thousands_of_unknown_keys_are_not_all_answered() -> None:
    """Such an answer was many times the request."""
    errors = errors_of(TTS, {f"tts_key_{n}": n for n in range(5_000)})
    assert list(errors)[0] == "/tts_key_0"
    assert len(errors) == 51
    assert errors[""] == "and 4950 more"


def test_fifty_wrong_fields_are_all_answered() -> None:
    assert list(errors_of(TTS, {f"key_{n}": n for n in range(50)})) == [
        f"/key_{n}" for n in range(50)
    ]


# -- rules across fields


def test_a_server_of_ones_own_needs_its_url() -> None:
    assert errors_of(STT, {"stt_backend": "ws"}) == {
        "/ws_url": "expected a ws:// or wss:// URL, because stt_backend is ws"
    }
    assert errors_of(STT, {"stt_backend": "ws", "ws_url": None})
    assert not errors_of(STT, {"stt_backend": "ws", "ws_url": "ws://h:1"})
    assert not errors_of(STT, {"ws_url": "ws://h:1"})


@pytest.mark.parametrize(
    ("shortest", "longest", "said"), [(200, None, {}), (30, 30, {}), (201, None, 200), (31, 30, 30)]
)
def test_the_shortest_piece_is_not_over_the_longest(
    shortest: int, longest: int | None, said: Any
) -> None:
    values = {"router_stream_min_chars": shortest}
    if longest is not None:
        values["router_stream_max_chars"] = longest
    expected = said and {
        "/router_stream_min_chars": f"expected at most router_stream_max_chars ({said})"
    }
    assert errors_of(ROUTER, values) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h",
        "http://h",
        "//h",
        "ws://",
        "ws:h",
        "ws:///path",
        "ws://:1",
        "ws://h:x",
        "ws://h:65536",
        "ws://[::1",
        "ws://h h",
        "ws://h/\u2028",
        "ws://h\n",
        " ws://h",
        "ws://h/\x7f",
    ],
)
def test_a_url_of_another_shape_is_refused(text: str) -> None:
    assert errors_of(STT, {"ws_url": text}) == {
        "/ws_url": "expected a URL that starts with ws:// or wss://"
    }


@pytest.mark.parametrize("text", ["ws://h", "wss://h:65535/a?b=c", "ws://[::1]:80", "WS://h"])
def test_a_url_with_a_host_is_taken(text: str) -> None:
    assert errors_of(STT, {"ws_url": text}) == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(", "missing ), unterminated subpattern at position 0"),
        ("[a", "unterminated character set at position 0"),
        ("*", "nothing to repeat at position 0"),
        ("a{99999999999999999999}", "the repetition number is too large"),
        ("(?<=a*)b", "look-behind requires fixed-width pattern"),
        ("a(?i)", "global flags not at the start of the expression at position 1"),
    ],
)
def test_a_regular_expression_that_does_not_compile_says_why(text: str, why: str) -> None:
    assert errors_of(ROUTER, {"router_stream_boundary_regex": text}) == {
        "/router_stream_boundary_regex": f"expected a regular expression: {why}"
    }


# -- secrets


def test_the_secrets_of_the_sample_catalogue() -> None:
    secret = {s: shape_of(s).secrets for s in SERVICES}
    assert {(s, key) for s, keys in secret.items() for key in keys} == SECRETS


@pytest.mark.parametrize(("service", "key"), sorted(SECRETS))
def test_a_secret_is_neither_in_the_defaults_nor_listed_as_a_key(service: str, key: str) -> None:
    assert key not in shape_of(service).effective({}).config
    assert key not in errors_of(service, {"zzzzzz": 1})["/zzzzzz"]
    assert schema_of(service)["properties"][key]["writeOnly"] is True


@pytest.mark.parametrize(
    ("service", "key", "good", "bad", "allowed"),
    [
        (LLM, "openai_api_key", "x" * 10, "hunter2", "a string of at least 10 characters or null"),
        (TTS, "eleven_api_key", "x" * 500, "hunter2" * 72, "a string of at most 500 characters"),
    ],
)
def test_a_secrets_value_is_checked_and_never_repeated(
    service: str, key: str, good: str, bad: str, allowed: str
) -> None:
    shape_of(service).check_secret(key, good)
    with pytest.raises(InvalidValues) as caught:
        shape_of(service).check_secret(key, bad)
    assert dict(caught.value.errors) == {"/value": f"expected {allowed}"}
    assert "hunter2" not in f"{caught.value} {caught.value.errors} {caught.value.extensions}"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("name", ["nothing", "llm_provider", ""])
def test_a_secret_that_the_service_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidValues) as caught:
        shape_of(LLM).check_secret(name, "x" * 10)
    assert dict(caught.value.errors) == {
        "/name": "llm-worker has no such secret; its secrets: openai_api_key"
    }
    with pytest.raises(InvalidValues, match="unknown secret") as caught:
        shape_of(STT).check_secret("token", "x")
    assert caught.value.errors[0].detail.endswith("its secrets: none")


# -- effective values


def test_stored_values_stand_over_defaults_in_the_models_order() -> None:
    config, defaulted = shape_of(WAKE).effective({"wake_vad_threshold": 0.9})
    assert config["wake_vad_threshold"] == 0.9
    assert list(config) == list(schema_of(WAKE)["properties"])
    assert set(defaulted) == set(config) - {"wake_vad_threshold"}


@STEADY
@given(st.sampled_from(fields()), json_values)
def test_any_value_is_taken_or_pointed_at(field: tuple[str, str], value: object) -> None:
    service, key = field
    if said := errors_of(service, {key: value}):
        assert all(where.split("/")[1] in schema_of(service)["properties"] for where in said)
        assert all(detail.startswith("expected ") for detail in said.values())
    else:
        assert shape_of(service).effective({key: value}).config[key] == value


# -- what the catalogue says about itself


def test_the_catalogue_lists_its_services_in_order() -> None:
    assert SAMPLE_CATALOGUE.services == SERVICES
    for service in SERVICES:
        assert parse_service(service) == shape_of(service).service
    assert SAMPLE_CATALOGUE.shape("somebody-else") is None


@pytest.mark.parametrize(("service", "key"), fields())
def test_each_field_tells_the_person_who_sets_it_what_it_is(service: str, key: str) -> None:
    assert is_key(key)
    field = schema_of(service)["properties"][key]
    assert field["description"].endswith(".")
    assert field["x-level"] in ("simple", "advanced")
    assert "default" in field


@pytest.mark.parametrize("service", SERVICES)
def test_nobody_is_shown_more_than_a_handful_of_simple_settings(service: str) -> None:
    levels = [field["x-level"] for field in schema_of(service)["properties"].values()]
    assert 1 <= levels.count("simple") <= 6


Digit = Annotated[int, Field(ge=0, le=9)]


def test_limits_of_every_kind_are_put_into_words() -> None:
    class Sample(ServiceSettings):
        SERVICE: ClassVar[str] = "sample"
        either: Literal["a", "b"] | Digit | None = setting("a", "One.")
        low: float = setting(1.0, "Two.", ge=0)
        between: float = setting(0.5, "Two and a half.", gt=0, lt=1)
        long: str = setting("abc", "Three.", min_length=3)
        many: list[int] = setting([], "Four.", min_length=0)
        named: dict[str, int] | None = setting(None, "Five.")

    wrong = {"either": 1.5, "low": -1, "between": 1, "long": "", "many": 1, "named": []}
    assert dict(ModelShape(Sample).errors(wrong)) == {
        "/either": "expected one of a, b or an integer from 0 to 9 or null",
        "/low": "expected a number at least 0",
        "/between": "expected a number over 0 and under 1",
        "/long": "expected a string of at least 3 characters",
        "/many": "expected a list",
        "/named": "expected an object or null",
    }


def test_an_empty_catalogue_knows_nobody() -> None:
    assert Catalogue().services == ()
    assert Catalogue().shape(STT) is None
