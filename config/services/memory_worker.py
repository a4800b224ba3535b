"""What the robot remembers."""

from __future__ import annotations

from typing import ClassVar, Literal

from config_manager.config.catalogue import ServiceSettings, setting
from config_manager.config.services.kinds import AbsolutePath


class MemorySettings(ServiceSettings):
    SERVICE: ClassVar[str] = "memory-worker"

    character_name: str = setting(
        "TARS", "Who the robot is.", level="simple", min_length=1, max_length=50
    )
    rag_strategy: Literal["hybrid", "semantic", "keyword"] = setting(
        "hybrid",
        "How memories are found: by meaning, by words, or both.",
        level="simple",
    )
    memory_dir: AbsolutePath = setting(
        "/data/memory", "Where memories are kept.", allowed="an absolute path"
    )
    memory_file: str = setting(
        "memory.pickle.gz",
        "The file they are kept in.",
        allowed="a file name of letters, digits, '_', '-' and '.'",
        pattern=r"^[A-Za-z0-9_.-]*[A-Za-z0-9_-][A-Za-z0-9_.-]*$",
    )
    character_dir: AbsolutePath = setting(
        "/config/characters", "Where characters are described.", allowed="an absolute path"
    )
    embed_model: str = setting(
        "sentence-transformers/all-MiniLM-L6-v2",
        "The model that tells which memories are alike; change it and all are read anew.",
        min_length=1,
        max_length=200,
    )
    memory_top_k: int = setting(5, "Memories given to the language model.", ge=1, le=20)
