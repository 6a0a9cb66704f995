"""Hostile text made visible, and data packed so that no byte of it is read as markup.

Jinja escapes what is in the page; what the script shows goes through `textContent`. Neither stops characters that
reorder, hide or color text, so those are replaced by what one can see. Data for the script is gzip in base64: its
alphabet has no `<`, and megabytes of rows shrink tenfold.
"""

from __future__ import annotations

import base64
import gzip
import json
import re

# C0 controls but tab and line feed, DEL, C1, zero-width and bidi marks and overrides, line and paragraph separators,
# BOM, interlinear annotations, tags. Carriage return is shown too: alone it hides what is before it in a terminal.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)


def visible(text: str) -> str:
    """`text` with each character that would hide, reorder or color something shown as its code (`␛`, `⟨U+202E⟩`)."""
    return _UNSEEN.sub(_shown, text)


def _shown(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's pictures of the control characters
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def pack(value: object) -> str:
    """JSON-able data as base64 of gzip, the same bytes each time (no clock in the header)."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("utf-8"), compresslevel=6, mtime=0)).decode("ascii")
