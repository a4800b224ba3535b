"""The language model."""

from __future__ import annotations

from typing import ClassVar, Literal

from config_manager.config.catalogue import ServiceSettings, setting


class LlmSettings(ServiceSettings):
    SERVICE: ClassVar[str] = "llm-worker"

    llm_provider: Literal["openai", "anthropic", "ollama"] = setting(
        "openai", "Who writes the answers; ollama runs on your own machine.", level="simple"
    )
    openai_api_key: str | None = setting(
        None, "The key of your OpenAI account.", level="simple", secret=True, min_length=10
    )
    openai_model: str = setting(
        "gpt-4o-mini", "OpenAI's model.", level="simple", min_length=1, max_length=100
    )
    rag_enabled: bool = setting(True, "Look into the memory before answering.", level="simple")
    llm_timeout_sec: float = setting(
        30.0, "How long an answer may take before it is given up.", unit="s", ge=1, le=120
    )
