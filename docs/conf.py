"""`./just docs`: README, docs/ and the other pages as a site that loads nothing from outside.

The source directory is the checkout, so that a link leads to the same place in the repository and in the
site. Warnings are errors: a link to a page, a file or a heading that is not there ends the build, and so
does a page that docs/contents.rst does not list.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]

project = "config-manager"
release = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["version"]
extensions = ["myst_parser"]
nitpicky = True

root_doc = "docs/contents"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**"]

myst_heading_anchors = 4
"""Headings get the anchors that a repository's page gives them, down to `####`."""

html_theme = "furo"
html_title = f"config-manager {release}"
html_extra_path = ["site"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
