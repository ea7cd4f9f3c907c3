"""From a matplotlib figure to bytes: a PNG, an SVG that stands alone, and one that fits into a page."""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

import numpy as np
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from PIL import Image

_WITHIN = re.compile(r"url\(#([^)]+)\)")
_PATH = re.compile(r'(?<= d=")[^"<>]*(?=")')
_COMMAND = re.compile(r"([MLCQz])([^MLCQz]*)")
_USE = re.compile(r"<use[^<>]*>")
_DECIMALS = re.compile(r"(\d\.\d\d)\d+")
_FONT = re.compile(r"'DejaVu Sans'(, *[\w-]+)*")


def to_png(figure: Figure, dpi: int = 160) -> bytes:
    """The figure as PNG on white, of 256 colours, which is a third of the bytes; equal figures give equal bytes."""
    with Image.open(io.BytesIO(_save(figure, "png", {"Software": None}, dpi))) as drawn:
        few = drawn.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, "png", optimize=True, dpi=(dpi, dpi))
    return buffer.getvalue()


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG on white; equal figures give equal bytes."""
    text = _save(figure, "svg", {"Date": None, "Creator": None, "Format": None, "Type": None}).decode()
    # Hundredths of a point are finer than any screen; matplotlib's own paths, absolute to six decimals, are long.
    text = _PATH.sub(lambda match: _relative(match[0]), text)
    text = _USE.sub(lambda match: _DECIMALS.sub(r"\1", match[0]), text)
    return _FONT.sub("'DejaVu Sans', Verdana, Arial, sans-serif", text).encode()


def to_inline(svg: bytes, prefix: str, label: str, variables: Mapping[str, str], trim: float = 0.0) -> str:
    """What `to_svg` made, as an `<svg>` element for an HTML page: it has no background, takes the page's letters and,
    where `variables` maps a colour to a CSS variable, its colours; `prefix` keeps its ids apart from other figures'.
    `trim` points are cut off on the left, so that it stands flush with the text."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            # matplotlib's style sheet would hold for the whole page, which has its own; patch_1 is the background.
            if _local(child.tag) in ("metadata", "style") or child.get("id") == "patch_1":
                parent.remove(child)
    colours = re.compile("|".join(map(re.escape, variables)) or "(?!)", re.IGNORECASE)
    for element in root.iter():
        element.tag = _local(element.tag)
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            element.set(_local(key), _attribute(_local(key), value, prefix, colours, variables))
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    root.set("viewBox", f"{left + trim:g} {top:g} {width - trim:g} {height:g}")
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", label)
    root.set("class", "figure")
    return ElementTree.tostring(root, encoding="unicode")


def _relative(path: str) -> str:
    """The same path, in hundredths, with every point but the first of a subpath as the way from the one before.

    The ways lie between rounded points, so that their errors do not add up.
    """
    found = []
    here = start = (0, 0)
    for command, numbers in _COMMAND.findall(path):
        values = [round(100 * float(number)) for number in numbers.split()]
        points = list(zip(values[::2], values[1::2], strict=True))
        if command == "z":
            found.append("z")
            here = start
            continue
        left, top = (0, 0) if command == "M" else here
        ways = [number for x, y in points for number in (x - left, y - top)]
        found.append((command if command == "M" else command.lower()) + _written(ways))
        here = points[-1]
        start = here if command == "M" else start
    return "".join(found)


def _written(hundredths: Sequence[int]) -> str:
    words = [f"{value / 100:.2f}".rstrip("0").rstrip(".") for value in hundredths]
    words = [re.sub(r"^(-?)0\.", r"\1.", word) for word in words]
    return "".join(word if index == 0 or word[0] == "-" else f" {word}" for index, word in enumerate(words))


def _attribute(key: str, value: str, prefix: str, colours: re.Pattern[str], variables: Mapping[str, str]) -> str:
    if key == "id":
        return prefix + value
    if key == "href":
        return f"#{prefix}{value.removeprefix('#')}"
    value = _WITHIN.sub(lambda match: f"url(#{prefix}{match[1]})", value)
    if key == "style":
        value = _FONT.sub("var(--sans)", value)
        value = colours.sub(lambda match: f"var({variables[match[0].lower()]}, {match[0]})", value)
    return value


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _save(figure: Figure, form: str, metadata: Mapping[str, None], dpi: int = 72) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A variant may be named in any script; a browser has the letters even where the bundled font has not.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format=form, metadata=dict(metadata), dpi=dpi)
    return buffer.getvalue()


def marker_path(marker: str) -> str:
    """A matplotlib marker as the `d` of an SVG path, at most one unit from the middle in each direction."""
    style = MarkerStyle(marker)
    path = style.get_path().transformed(style.get_transform())
    polygons = [np.asarray(polygon) for polygon in path.to_polygons(closed_only=False)]
    reach = max(float(np.abs(polygon).max()) for polygon in polygons)
    return "".join(
        "M" + "L".join(f"{x / reach:.2f} {-y / reach:.2f}" for x, y in polygon) + ("Z" if len(polygon) > 2 else "")
        for polygon in polygons
    )
