"""Text as Markdown shows it: nothing that a name or a command holds can become markup."""

import re
from typing import Any

from markupsafe import Markup

_SPECIAL = re.compile(r"([\\`*_\[\]#~$])")


def markdown(value: Any) -> Any:
    """`value` as one line of Markdown text that shows exactly itself, in a table's cell too.

    Example:
        >>> markdown("a|b *c* <d>")
        'a&#124;b \\\\*c\\\\* &lt;d&gt;'
    """
    if isinstance(value, Markup):
        return value
    line = " ".join(str(value).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", line).replace("|", "&#124;")


def fenced(text: str) -> Markup:
    """`text` as a code block, with a fence longer than any that it holds."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return Markup("{}\n{}\n{}").format(Markup(fence), Markup(text), Markup(fence))
