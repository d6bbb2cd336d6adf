"""The published evaluators as options: ranges, thresholds, and what each does with an empty range.

Source   metrics.md sections 2.2, 2.5, 2.6 and 2.8
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

from momentkit.core.errors import ConfigError

EmptyRange = Literal["null", "zeros", "everything"]
HighlightRule = Literal["scored", "where_labelled", "first_row", "never"]


@dataclass(frozen=True)
class LengthRange:
    """True windows with over_s < end - start <= up_to_s; all windows, unfiltered, where `every` is set."""

    name: str
    over_s: float
    up_to_s: float
    every: bool = False


@dataclass(frozen=True, kw_only=True)
class MomentProtocol:
    """What one published evaluator computes.

    Attributes:
        name: as users write it.
        ranges: lengths of true windows that are scored separately; the first is "full".
        recall_from: smallest threshold of R1; the largest is 0.95, the step 0.05.
        mean_iou: whether mIoU is part of each range.
        recall_at_five: whether R5 is part of each range, and mIoU of each range part of the brief (UniVTG).
        empty_range: figures of a range without true windows: null, the zeros of CG-DETR, or UniVTG's
            figures of everything.
        highlights: "scored" when predicted; "where_labelled": also left out where no truth row has labels;
            "first_row": decided by the first truth row; "never".
        brief_recall: thresholds of R1 in the brief.
        absent_ranges: ranges that the brief names with null.
    """

    name: str
    ranges: tuple[LengthRange, ...]
    recall_from: float = 0.5
    mean_iou: bool = False
    recall_at_five: bool = False
    empty_range: EmptyRange = "null"
    highlights: HighlightRule = "scored"
    brief_recall: tuple[float, ...] = (0.5, 0.7)
    absent_ranges: tuple[str, ...] = ()

    @property
    def recall_thresholds(self) -> tuple[float, ...]:
        """Parsed decimals: 0.55 is the float 0.55, not a sum of steps."""
        return tuple(float(f"{p / 100:.2f}") for p in range(round(100 * self.recall_from), 100, 5))


_FULL = LengthRange("full", 0, 150, every=True)
_SHORT, _MIDDLE = LengthRange("short", 0, 10), LengthRange("middle", 10, 30)
_QVH_RANGES = (_FULL, _SHORT, _MIDDLE, LengthRange("long", 30, 150))
_QVH = MomentProtocol(name="qvh", ranges=_QVH_RANGES)
_CGDETR = MomentProtocol(
    name="cgdetr",
    ranges=_QVH_RANGES,
    recall_from=0.3,
    mean_iou=True,
    empty_range="zeros",
    highlights="where_labelled",
    brief_recall=(0.3, 0.5, 0.7),
)
_UNIVTG = MomentProtocol(
    name="univtg",
    ranges=(_FULL, _SHORT, _MIDDLE, LengthRange("long", 30, inf)),
    recall_from=0.3,
    mean_iou=True,
    recall_at_five=True,
    empty_range="everything",
    highlights="first_row",
    brief_recall=(0.3, 0.5, 0.7),
)
_LIGHTHOUSE = MomentProtocol(name="lighthouse", ranges=(LengthRange("full", 0, 1500),))

_CHARADES_RANGES = (_FULL, LengthRange("short", 0, 15), LengthRange("middle", 15, 30))
_ACTIVITY_RANGES = (
    LengthRange("full", 0, 1000),
    LengthRange("short", 0, 20),
    LengthRange("middle", 20, 50),
    LengthRange("long", 50, 1000),
)


def moment_protocol(name: str) -> MomentProtocol:
    """The protocol of a name.

    Args:
        name: qvh (official), cgdetr (also LD-DETR, FlashVTG), univtg, lighthouse, or momentdiff[:set] where
            the set is hl, tacos, or begins with charades or activity.

    Raises:
        ConfigError: no such protocol; the known ones are listed.
    """
    plain = {p.name: p for p in (_QVH, _CGDETR, _UNIVTG, _LIGHTHOUSE)}
    if name in plain:
        return plain[name]
    family, _, dataset = name.partition(":")
    if family == "momentdiff":
        if dataset in ("", "hl", "tacos"):
            return _momentdiff(name, _QVH_RANGES, ())
        if dataset.startswith("charades"):
            return _momentdiff(name, _CHARADES_RANGES, ("long",))
        if dataset.startswith("activity"):
            return _momentdiff(name, _ACTIVITY_RANGES, ())
        raise ConfigError(
            f"momentdiff knows no set {dataset!r}; there are hl, tacos, charades and activity (and variants)"
        )
    raise ConfigError(
        f"no protocol {name!r}; there are {', '.join(plain)}, momentdiff[:hl|tacos|charades|activity], "
        "tan[:charades|activitynet|tacos], tvsum, youtube, didemo"
    )


def _momentdiff(name: str, ranges: tuple[LengthRange, ...], absent: tuple[str, ...]) -> MomentProtocol:
    return MomentProtocol(
        name=name,
        ranges=ranges,
        recall_from=0.1,
        highlights="never",
        brief_recall=(0.1, 0.3, 0.5, 0.7),
        absent_ranges=absent,
    )
