from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:  # bench/ is run from the project, it is not installed
    sys.path.append(ROOT)
