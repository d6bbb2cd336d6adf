"""One row of an annotation file under examination: each field checked, each fault noted in words."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from momentkit.core.errors import ConfigError
from momentkit.core.types import Query, QueryId

MAX_QUERY_CHARACTERS = 10_000  # the longest published query has 45 words
MAX_RATING = 4
MAX_CHUNKS = 6  # of DiDeMo's videos, which have 30 s


@dataclass(frozen=True)
class Problem:
    """One fault of an annotation file.

    Attributes:
        kind: a few words, equal for equal faults.
        line: 1-based.
        message: the sentence, with file, line and field.
    """

    kind: str
    line: int
    message: str


@dataclass(frozen=True, kw_only=True)
class WindowRules:
    """What may be done with windows that do not lie in their video; by default they are faults.

    Attributes:
        clip_windows: cut them to [0, duration].
        keep_outside: leave them as they are, as the published evaluators do.
        drop_bad_windows: drop windows whose end is not after their start (after cutting); a row that loses
            all its windows is dropped.
        unrated_clips: read past the clip ids of a row without ratings (captions have them).
    """

    clip_windows: bool = False
    keep_outside: bool = False
    drop_bad_windows: bool = False
    unrated_clips: bool = False

    def __post_init__(self) -> None:
        if self.clip_windows and self.keep_outside:
            raise ConfigError("clip_windows and keep_outside exclude each other; choose one")


class RowCheck:
    """One row under examination: each method reads one field and notes what is wrong with it.

    Args:
        row: the JSON object.
        where: file and line, for the messages.
        line: 1-based.
        rules: what may be done with windows.
        mended: counts "clipped" and "dropped" windows; added to.

    Attributes:
        problems: the faults found by `query`.
        lost_all_windows: the row had windows, and each was dropped.
    """

    def __init__(
        self, row: Mapping[str, Any], where: str, line: int, rules: WindowRules, mended: Counter[str]
    ) -> None:
        self.row, self.where, self.line, self.rules, self.mended = row, where, line, rules, mended
        self.problems: list[Problem] = []
        self.lost_all_windows = False

    def query(self) -> Query | None:
        """The row; None where it has a fault."""
        qid, text, vid, duration_s = self.qid(), self.text(), self.name("vid"), self.duration_s()
        windows_s = self.windows_s(duration_s)
        clips, annotators = self.relevant_clips(), self.annotators()
        scores, labels = self.ratings("saliency_scores", MAX_RATING), self.ratings("label", None)
        domain = self.name("domain") if self.row.get("domain") is not None else ""
        if self.rules.unrated_clips and scores is None:
            clips = None
        if not self.problems and (clips is None) != (scores is None):
            self.note(
                "clip ids and scores differ", "saliency_scores", "goes with relevant_clip_ids, one is null"
            )
        if clips is not None and scores is not None and len(clips) != len(scores):
            self.note(
                "clip ids and scores differ",
                "saliency_scores",
                f"has {len(scores)} entries for {len(clips)} relevant_clip_ids",
            )
        if self.problems or qid is None or text is None or vid is None or duration_s is None:
            return None
        return Query(
            qid=qid,
            text=text,
            vid=vid,
            duration_s=duration_s,
            windows_s=windows_s,
            relevant_clips=clips,
            saliency_scores=scores,
            clip_labels=labels,
            annotators=annotators,
            domain=domain or "",
            line=self.line,
        )

    def note(self, kind: str, field: str, what: str) -> None:
        self.problems.append(Problem(kind, self.line, f"{self.where}: {field} {what}"))

    def qid(self) -> QueryId | None:
        value = self.row.get("qid")
        if isinstance(value, (int, str)) and not isinstance(value, bool) and value != "":
            return value
        self.wrong("qid", "an integer or a text", value)
        return None

    def text(self) -> str | None:
        value = self.row.get("query")
        if not isinstance(value, str):
            self.wrong("query", "a sentence", value)
        elif not value.strip():
            self.note("empty query", "query", "is empty; a sentence is wanted")
        elif len(value) > MAX_QUERY_CHARACTERS:
            self.note(
                "query too long", "query", f"has {len(value)} characters, at most {MAX_QUERY_CHARACTERS}"
            )
        else:
            return value
        return None

    def name(self, field: str) -> str | None:
        value = self.row.get(field)
        if isinstance(value, str) and value:
            return value
        self.wrong(field, "a text", value)
        return None

    def duration_s(self) -> float | None:
        value = _number(self.row.get("duration"))
        if value is None:
            self.wrong("duration", "a number of seconds", self.row.get("duration"))
        elif not value > 0:
            self.note(
                "duration not positive", "duration", f"is {value}; a positive number of seconds is wanted"
            )
            return None
        return value

    def windows_s(self, duration_s: float | None) -> tuple[tuple[float, float], ...] | None:
        value = self.row.get("relevant_windows")
        if value is None:
            return None
        if not isinstance(value, list):
            self.wrong("relevant_windows", "a list of [start, end] in seconds", value)
            return None
        kept = []
        for index, window in enumerate(value):
            field = f"relevant_windows[{index}]"
            pair = [_number(bound) for bound in window] if isinstance(window, list) else []
            if len(pair) != 2 or pair[0] is None or pair[1] is None:
                self.wrong(field, "[start, end] in seconds", window)
            elif duration_s is not None:
                kept += self.window_s(field, pair[0], pair[1], duration_s)
        self.lost_all_windows = bool(value) and not kept
        return tuple(kept)

    def window_s(
        self, field: str, start_s: float, end_s: float, duration_s: float
    ) -> list[tuple[float, float]]:
        """The window in a list; an empty list where it is dropped or has a fault."""
        seen = f"[{start_s}, {end_s}]"
        if self.rules.clip_windows and not (start_s >= 0 and end_s <= duration_s):
            start_s, end_s = min(max(start_s, 0.0), duration_s), min(max(end_s, 0.0), duration_s)
            self.mended["clipped"] += 1
        if not end_s > start_s:
            if self.rules.drop_bad_windows:
                self.mended["dropped"] += 1
            else:
                self.note(
                    "window does not end after its start",
                    field,
                    f"{seen} has no length inside the video's {duration_s} s; drop_bad_windows leaves it out",
                )
            return []
        if not self.rules.keep_outside and not (start_s >= 0 and end_s <= duration_s):
            self.note(
                "window outside the video",
                field,
                f"{seen} is not inside the video's {duration_s} s; clip_windows cuts it",
            )
        return [(start_s, end_s)]

    def relevant_clips(self) -> tuple[int, ...] | None:
        value = self.row.get("relevant_clip_ids")
        if value is None:
            return None
        if not isinstance(value, list) or not all(type(clip) is int and clip >= 0 for clip in value):
            self.wrong("relevant_clip_ids", "a list of clip indices from 0", value)
            return None
        if len(set(value)) != len(value):
            self.note("repeated clip id", "relevant_clip_ids", "names a clip twice; each once is wanted")
        return tuple(value)

    def annotators(self) -> tuple[tuple[int, int], ...] | None:
        value = self.row.get("annotators")
        if value is None:
            return None
        if not isinstance(value, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and all(type(chunk) is int for chunk in pair)
            and 0 <= pair[0] <= pair[1] < MAX_CHUNKS
            for pair in value
        ):  # fmt: skip
            self.wrong("annotators", f"a list of [first, last] chunks, 0 to {MAX_CHUNKS - 1}", value)
            return None
        return tuple((first, last) for first, last in value)

    def ratings(self, field: str, largest: float | None) -> tuple[tuple[float, ...], ...] | None:
        value = self.row.get(field)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(clip, list) and clip for clip in value):
            self.wrong(field, "one list of ratings a clip", value)
            return None
        rows = [tuple(number for rating in clip if (number := _number(rating)) is not None) for clip in value]
        if any(len(row) != len(value[0]) for row in rows) or any(
            len(clip) != len(value[0]) for clip in value
        ):
            self.wrong(field, "equally many numbers for each clip", value)
        elif largest is not None and not all(0 <= rating <= largest for row in rows for rating in row):
            self.note("rating out of range", field, f"holds a rating outside 0..{largest}")
        return tuple(rows)

    def wrong(self, field: str, wanted: str, value: Any) -> None:
        shown = json.dumps(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        base = field.partition("[")[0]
        if base in self.row:
            self.note(f"wrong {base}", field, f"must be {wanted}, got {shown}")
        else:
            self.note(f"no {base}", field, f"is missing; {wanted} is wanted")


def _number(value: Any) -> float | None:
    """A finite number as float; None for anything else (1e999 is read as infinity)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
