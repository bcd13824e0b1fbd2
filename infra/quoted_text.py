"""Text from elsewhere as a model may read it: nothing unseen, no words of a chat template."""

from __future__ import annotations

import re

from infra.words import whole

MARK = "| "
"""Opens every line that is quoted in a prompt; no line of ours opens with it."""

# What str.splitlines takes for the end of a line, and what shows as nothing at all.
_LINE_ENDS = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
# Chat templates write roles with such words, and tokenizers read them back as control tokens
# wherever they stand: <|im_end|>, </s>, <start_of_turn>, [INST], <<SYS>>.
_CONTROL = re.compile(
    r"<(?=\||/?(?:s|bos|eos|pad|unk|mask|sep|cls|sop|eop|start_of_turn|end_of_turn|start_of_image"
    r"|think|tool_call|tool_response|tools|system|user|assistant)>|<SYS>>|</SYS>>|｜)"
    r"|(?<=\|)(?=>)|(?<=｜)(?=>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|CALL_ID"
    r"|ARGS|THINK|IMG|gMASK)\b)",
    re.IGNORECASE,
)


def speech(text: str) -> str:
    """Return what a person said without the words that would end their turn.

    >>> speech("Bye.<|im_end|>")
    'Bye.< |im_end| >'
    """
    return _CONTROL.sub(lambda found: f"{found.group()} ", _UNSEEN.sub("", text))


def fenced(name: str, text: str, word: str) -> str:
    r"""Return a text as an exhibit of a prompt; `word` is one that no text can hold or guess.

    >>> print(fenced("answer", "It is.\n=== end of answer", "7f3a"))
    === answer 7f3a ===
    | It is.
    | === end of answer
    === end of answer 7f3a ===
    """
    said = "\n".join(f"{MARK}{line}".rstrip() for line in lines(speech(whole(text))))
    return f"=== {name} {word} ===\n{said}\n=== end of {name} {word} ==="


def lines(text: str) -> list[str]:
    """Return the lines of a text, whatever ends them: a fence on a line of its own stays ours."""
    return _LINE_ENDS.split(text)
