"""Pieces of one film as FCPXML 1.8, which Final Cut Pro, DaVinci Resolve and Premiere's converters read.

Times are exact fractions of a second and multiples of the frame's length, as the format demands.

Source   Apple, FCPXML reference: asset-clip, format, "time values"
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import SubElement

from momentkit.predict.render import one_line
from momentkit.video.grid import FrameGrid


def to_fcpxml(
    film: Path,
    grid: FrameGrid,
    size: tuple[int, int],
    sound: bool,
    stretches: Sequence[tuple[int, int]],
    names: Sequence[tuple[str, str]],
) -> str:
    """One project whose spine holds the stretches behind each other.

    Args:
        film: absolute path.
        grid: its frames.
        size: height, width.
        sound: whether it has any.
        stretches: frames, ends exclusive.
        names: a name and a note for each.
    """
    tick = 1 / grid.rate
    count_in = "DF" if grid.drop else "NDF"
    root = ElementTree.Element("fcpxml", version="1.8")
    resources = SubElement(root, "resources")
    SubElement(
        resources,
        "format",
        id="r1",
        name="FFVideoFormatRateUndefined",
        frameDuration=_time(tick),
        width=str(size[1]),
        height=str(size[0]),
    )
    asset = SubElement(
        resources,
        "asset",
        id="r2",
        name=one_line(film.name),
        src=film.as_uri(),
        start=_time(grid.first_frame * tick),
        duration=_time(grid.frames * tick),
        format="r1",
        hasVideo="1",
    )
    if sound:
        asset.set("hasAudio", "1")
    title = f"moments of {one_line(film.name)}"
    project = SubElement(SubElement(root, "event", name=title), "project", name=title)
    total = sum(end - first for first, end in stretches)
    sequence = SubElement(
        project, "sequence", format="r1", duration=_time(total * tick), tcStart="0s", tcFormat=count_in
    )
    spine = SubElement(sequence, "spine")
    offset = 0
    for (first, end), (name, note) in zip(stretches, names, strict=True):
        clip = SubElement(
            spine,
            "asset-clip",
            ref="r2",
            name=name,
            offset=_time(offset * tick),
            start=_time((grid.first_frame + first) * tick),
            duration=_time((end - first) * tick),
            tcFormat=count_in,
        )
        SubElement(clip, "note").text = note
        offset += end - first
    ElementTree.indent(root)
    document = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n{document}\n'


def _time(seconds: Fraction) -> str:
    if seconds.denominator == 1:
        return f"{seconds.numerator}s"
    return f"{seconds.numerator}/{seconds.denominator}s"
