"""What a notebook shows of an object: a fragment of HTML with a style of its own."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from likely.files import write_bytes

# Of a report's page and of a notebook's cell alike.
LIGHT = """--page: #fbfaf8; --card: #ffffff; --ink: #1d2026; --muted: #666d78; --line: #e3e1dc;
  --grid: #ebe9e4; --good: #17734a; --good-back: #e0f3e8; --fair: #875b06; --fair-back: #fbf0d7;
  --none: #77484f; --none-back: #f6e7e8; --accent: #2b5fb8;
  --series-1: #2b5fb8; --series-2: #d1661b; --series-3: #17805a; --series-4: #9b3fa8;
  --series-5: #b3263f; --series-6: #64707f;"""
DARK = """--page: #14161a; --card: #1c1f25; --ink: #e6e8ec;
  --muted: #9aa1ad; --line: #30353e; --grid: #2a2f37; --good: #7fdcae; --good-back: #173528;
  --fair: #f0c56b; --fair-back: #3a2f16; --none: #e0a3ab; --none-back: #3a2226;
  --accent: #8fb6ff; --series-1: #7aa8ff; --series-2: #ff9d5c; --series-3: #62d6a4;
  --series-4: #d693e0; --series-5: #ff8095; --series-6: #a3adba;"""
COLOURS = f":root {{ {LIGHT} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}"

STYLE = f"""
.likely {{ {LIGHT} background: var(--card); color: var(--ink); padding: 10px 14px;
  border: 1px solid var(--line); border-radius: 10px; max-width: 1100px;
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }}
@media (prefers-color-scheme: dark) {{ .likely {{ {DARK} }} }}
.likely p {{ margin: 0 0 4px; }}
.likely .muted {{ color: var(--muted); font-size: 13px; }}
.likely table {{ border-collapse: collapse; margin: 4px 0; font-size: inherit; }}
.likely th, .likely td {{ text-align: left; padding: 3px 12px 3px 0; vertical-align: top;
  border: 0; border-bottom: 1px solid var(--line); background: var(--card); color: var(--ink); }}
.likely th {{ font-weight: 600; }}
.likely .badge {{ display: inline-block; padding: 0 8px; border-radius: 99px; font-size: 12px;
  line-height: 19px; font-weight: 600; white-space: nowrap; }}
.likely .good {{ color: var(--good); background: var(--good-back); }}
.likely .fair {{ color: var(--fair); background: var(--fair-back); }}
.likely .none {{ color: var(--none); background: var(--none-back); }}
.likely .charts {{ display: flex; flex-wrap: wrap; gap: 8px 20px; }}
.likely .charts > div {{ width: 380px; }}
.likely .charts b {{ font-size: 13px; }}
.likely .chart {{ display: block; width: 100%; height: auto; }}
.likely .chart text {{ font: 11px system-ui, sans-serif; fill: var(--muted); }}
.likely .legend {{ display: flex; flex-wrap: wrap; gap: 2px 12px; font-size: 12px;
  color: var(--muted); padding-left: 42px; }}
.likely .legend i {{ display: inline-block; width: 14px; height: 3px; border-radius: 2px;
  margin-right: 5px; vertical-align: middle; }}
.likely img {{ display: block; margin: 6px 0 2px; border-radius: 6px; max-width: 100%; }}
"""


class Shown:
    """Something to look at: a notebook shows it, `save` writes it as a page.

    Args:
        text: what stands in its place where there is no notebook.
        body: HTML, from `fragment`.
    """

    def __init__(self, text: str, body: str) -> None:
        self._text, self._body = text, body

    def __repr__(self) -> str:
        return f'{self._text} (a notebook shows it; .save("file.html") writes it)'

    def _repr_html_(self) -> str:
        return self._body

    def save(self, path: str | Path) -> None:
        """Write it as a page of HTML that needs no other file."""
        page = (
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>{html.escape(self._text)}</title>\n<body>{self._body}</body>\n</html>\n"
        )
        write_bytes(Path(path), page.encode())


def fragment(*parts: str) -> str:
    """Pieces of HTML one below another, in a frame."""
    return f'<div class="likely"><style>{STYLE}</style>{"".join(parts)}</div>'


def line(text: Any, *, muted: bool = False) -> str:
    """A line of text."""
    return f"<p{' class=muted' if muted else ''}>{html.escape(str(text))}</p>"


def badge(word: str, style: str) -> str:
    """A word on a coloured ground: "good", "fair" or "none"."""
    return f'<span class="badge {style}">{html.escape(word)}</span>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells are HTML."""
    head = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
