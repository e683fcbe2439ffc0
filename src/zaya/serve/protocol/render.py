"""The body of /ui/render."""

from __future__ import annotations

from zaya.serve.protocol.base import Body


class RenderBody(Body):
    """A text in Markdown."""

    text: str
