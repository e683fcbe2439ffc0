"""The spellings of ZAYA1's control tokens. Everything that writes or reads them takes them from here.

Source: spec checkpoint-and-model 7 and 8.
"""

from __future__ import annotations

PAD = "<pad>"
EOS = "<eos>"
BOS = "<bos>"
UNK = "<unk>"

CALL_OPEN = "<zyphra_tool_call>"
CALL_CLOSE = "</zyphra_tool_call>"
RESPONSE_OPEN = "<zyphra_tool_response>"
RESPONSE_CLOSE = "</zyphra_tool_response>"
TURN_OPEN = "<|im_start|>"
TURN_CLOSE = "<|im_end|>"
THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"

TAGS = (
    CALL_OPEN, CALL_CLOSE, RESPONSE_OPEN, RESPONSE_CLOSE, TURN_OPEN, TURN_CLOSE, THINK_OPEN, THINK_CLOSE,
)  # fmt: skip

ASSISTANT_TAGS = (THINK_OPEN, THINK_CLOSE, CALL_OPEN, CALL_CLOSE)
"""What an assistant may write itself: in the text of its turns these are the real tokens (spec 8.3)."""

FUNCTION_OPEN = "<function="
FUNCTION_CLOSE = "</function>"
PARAMETER_OPEN = "<parameter="
PARAMETER_CLOSE = "</parameter>"
"""The inside of a tool call is ordinary text, not tokens of its own."""
