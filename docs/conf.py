"""Settings of the documentation; `make docs` builds it and treats warnings as errors."""

import re
import sys
from pathlib import Path
from typing import Any

from likely import __version__

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "Likely"
author = "The Likely developers"
copyright = "The Likely developers"
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_use_ivar = True

# An attribute's name (train, say) may be that of a property of several classes.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = "Likely"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["likely.css"]


def _plain_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: [B, *shape], |x| and blocks set off by indentation alone."""
    before, found = "", list[str]()
    for line in lines:
        if what == "module" and line.startswith("    ") and not before.startswith(" "):
            found += ["::", ""]
        before = line or before
        line = re.sub(r"(?<![\\*`])\*(?=[A-Za-z])(?![^*]*\*\*)", r"\\*", line)
        found.append(re.sub(r"(?<![\\`])\|(?!`)", r"\\|", line))
    lines[:] = found


def setup(app: Any) -> None:
    """Sphinx's entry point."""
    app.connect("autodoc-process-docstring", _plain_text)
