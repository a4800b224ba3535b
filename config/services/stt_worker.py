"""Speech to text."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import model_validator

from config_manager.config.catalogue import ServiceSettings, setting
from config_manager.config.services.kinds import url_of

WhisperModel = Literal[
    "tiny", "tiny.en", "base", "base.en", "small", "small.en",
    "medium", "medium.en", "large", "large-v2", "large-v3",
]  # fmt: skip


class SttSettings(ServiceSettings):
    SERVICE: ClassVar[str] = "stt-worker"

    whisper_model: WhisperModel = setting(
        "base.en",
        "Which Whisper model recognises speech. Larger hears better and answers later; "
        ".en models know English only and are better at it for their size.",
        level="simple",
    )
    stt_backend: Literal["whisper", "ws", "openai"] = setting(
        "whisper",
        "Who recognises: whisper on this machine, ws a server of yours (ws_url), openai the cloud.",
        level="simple",
    )
    ws_url: Annotated[str, url_of("ws", "wss")] | None = setting(
        None,
        "Where the recognition server listens; needed where stt_backend is ws.",
        allowed="a ws:// or wss:// URL, or null",
    )
    streaming_partials: bool = setting(
        False, "Send what was understood so far while somebody is still speaking."
    )
    vad_threshold: float = setting(
        0.5,
        "How sure the voice detector must be that it hears speech. Raise it in noisy rooms, "
        "lower it for quiet speakers.",
        ge=0,
        le=1,
    )
    vad_speech_pad_ms: int = setting(
        300,
        "Sound kept before and after detected speech, so that no syllable is cut off.",
        unit="ms",
        ge=0,
        le=1000,
    )
    vad_silence_duration_ms: int = setting(
        500,
        "Silence that ends an utterance. Shorter answers sooner, longer lets people pause to think.",
        unit="ms",
        ge=0,
        le=2000,
    )
    sample_rate: int = setting(
        16000, "Samples a second from the microphone; Whisper wants 16000.", unit="Hz", gt=0
    )
    channels: int = setting(1, "Microphone channels; 2 are mixed down.", ge=1, le=2)

    @model_validator(mode="after")
    def _ws_needs_a_url(self) -> Self:
        if self.stt_backend == "ws" and self.ws_url is None:
            raise ValueError("ws_url: expected a ws:// or wss:// URL, because stt_backend is ws")
        return self
