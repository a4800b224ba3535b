"""Who talks when."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, model_validator

from config_manager.config.catalogue import ServiceSettings, setting


def _compiles(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"expected a regular expression: {error}") from None
    return text


class RouterSettings(ServiceSettings):
    SERVICE: ClassVar[str] = "router"

    router_llm_tts_stream: bool = setting(
        True, "Speak an answer while the language model is still writing it.", level="simple"
    )
    router_stream_min_chars: int = setting(
        30, "The shortest piece of an answer that is spoken by itself.", unit="chars", ge=1, le=500
    )
    router_stream_max_chars: int = setting(
        200, "The longest piece; then it is cut where it stands.", unit="chars", ge=1, le=1000
    )
    router_stream_boundary_only: bool = setting(True, "Cut only where a sentence ends.")
    router_stream_boundary_regex: Annotated[str, AfterValidator(_compiles)] = setting(
        r"[.!?…][\"'”’)\]]?\s",
        "Where a sentence ends, as a regular expression.",
        allowed="a regular expression of at most 200 characters",
        max_length=200,
    )
    router_wake_window_sec: float = setting(
        8.0,
        "How long after the wake word somebody may begin to speak.",
        level="simple",
        unit="s",
        ge=1,
        le=60,
    )
    router_wake_ack_enabled: bool = setting(
        True, "Answer the wake word with a short word.", level="simple"
    )
    router_wake_ack_text: str = setting(
        "Yes?", "That word, where no choices are given.", level="simple", max_length=100
    )
    router_wake_ack_choices: str = setting(
        "Hmm?|Huh?|Yes?", "Words to choose from, parted by a bar.", max_length=500
    )
    router_live_mode_default: bool = setting(
        False, "Listen without a wake word from the start.", level="simple"
    )
    router_live_mode_enter_phrase: str = setting(
        "enter live mode", "What somebody says to start it.", min_length=1, max_length=100
    )
    router_live_mode_exit_phrase: str = setting(
        "exit live mode", "What somebody says to end it.", min_length=1, max_length=100
    )

    @model_validator(mode="after")
    def _shortest_is_not_over_longest(self) -> Self:
        if self.router_stream_min_chars > self.router_stream_max_chars:
            raise ValueError(
                "router_stream_min_chars: expected at most router_stream_max_chars "
                f"({self.router_stream_max_chars})"
            )
        return self
