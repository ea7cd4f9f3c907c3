"""JSON that takes few lines, and of which a difference shows what has changed."""

import json
from collections.abc import Mapping
from typing import Any


def json_line(value: Any) -> str:
    """A JSON value as one line without spaces.

    Args:
        value: the value.

    Returns:
        The line, without its end.

    Raises:
        ValueError: if a number is not finite.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def compact_json(content: Mapping[str, Any]) -> str:
    """A JSON object with a line for each entry, and for each entry of an entry.

    Args:
        content: the object.

    Returns:
        The text.
    """
    lines = []
    for key, value in content.items():
        inner = json_line(value)
        if isinstance(value, dict):
            inner = "{\n" + ",\n".join(f"{json_line(name)}: {json_line(each)}" for name, each in value.items()) + "\n}"
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            inner = "[\n" + ",\n".join(map(json_line, value)) + "\n]"
        lines.append(f"{json_line(key)}: {inner}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
