"""Questions about a film, with the truth: annotation rows in the QVHighlights form.

Windows are the planted borders in seconds, on the film's grid (0.5 s), not on the clip grid. A clip is
relevant where at least half of it lies in a window.
"""

from dataclasses import dataclass, replace

import numpy as np

from momentkit.data.synthetic.concepts import COLOURS, ROLES, SHAPES
from momentkit.data.synthetic.grammar import Ask, sentence
from momentkit.data.synthetic.world import Fact, Film

CLIP_LENGTH_S = 1.0
RATERS = 3
Window = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A sentence and its truth.

    Attributes:
        text: the sentence.
        ask: what it means.
        windows_s: when it happens, sorted and disjoint; empty where it does not.
    """

    text: str
    ask: Ask
    windows_s: tuple[Window, ...]


def windows_of(ask: Ask, facts: tuple[Fact, ...]) -> tuple[Window, ...] | None:
    """When what is asked happens; None where a viewer might disagree."""
    fitting = [fact for fact in facts if ask.fits(fact)]
    if not all(fact.certain for fact in fitting):
        return None
    merged: list[Window] = []
    for start_s, end_s in sorted((fact.start_s, fact.end_s) for fact in fitting):
        if merged and start_s <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end_s)
        else:
            merged.append((start_s, end_s))
    return tuple(merged)


def questions(film: Film, count: int, rng: np.random.Generator) -> tuple[Question, ...]:
    """Up to `count` different questions whose answer is in the film."""
    facts = film.facts()
    certain = [fact for fact in facts if fact.certain]
    found: dict[Ask, Question] = {}
    for index in rng.permutation(len(certain)):
        if len(found) == count:
            break
        ask = _ask(certain[index], rng)
        windows_s = windows_of(ask, facts)
        if windows_s and ask not in found:
            found[ask] = Question(text=sentence(ask, rng), ask=ask, windows_s=windows_s)
    return tuple(found.values())


def _ask(fact: Fact, rng: np.random.Generator) -> Ask:
    """A question about a fact; now and then it leaves the colour or the shape open."""
    ask = Ask(role=fact.role, colour=fact.actor.colour, shape=fact.actor.shape)
    if fact.other is not None and rng.random() < 0.85:
        ask = replace(ask, other_colour=fact.other.colour, other_shape=fact.other.shape)
    leave = rng.random()
    if leave < 0.1:
        return replace(ask, colour=None)
    return replace(ask, shape=None) if leave < 0.2 else ask


def absent(film: Film, count: int, rng: np.random.Generator) -> tuple[Question, ...]:
    """Up to `count` questions whose answer is not in the film: near misses of what is."""
    facts = film.facts()
    certain = [fact for fact in facts if fact.certain]
    found: dict[Ask, Question] = {}
    for _ in range(20 * count if certain else 0):
        if len(found) == count:
            break
        ask = _near_miss(_ask(certain[int(rng.integers(len(certain)))], rng), rng)
        if windows_of(ask, facts) == ():
            found[ask] = Question(text=sentence(ask, rng), ask=ask, windows_s=())
    return tuple(found.values())


def _near_miss(ask: Ask, rng: np.random.Generator) -> Ask:
    """The same with another colour, another shape or another action."""
    changed = rng.integers(3)
    if changed == 0 and ask.colour is not None:
        return replace(ask, colour=str(rng.choice(COLOURS)))
    if changed == 1 and ask.shape is not None:
        return replace(ask, shape=str(rng.choice(SHAPES)))
    role = str(rng.choice(ROLES[:16]))
    return Ask(role=role, colour=ask.colour, shape=ask.shape)


def relevant_clips(windows_s: tuple[Window, ...], duration_s: float) -> list[int]:
    """Clips of `CLIP_LENGTH_S` of which at least half lies inside a window."""
    starts_s = np.arange(int(np.ceil(duration_s / CLIP_LENGTH_S))) * CLIP_LENGTH_S
    inside_s = np.zeros(len(starts_s))
    for start_s, end_s in windows_s:
        overlap_s = np.minimum(starts_s + CLIP_LENGTH_S, end_s) - np.maximum(starts_s, start_s)
        inside_s += np.clip(overlap_s, 0, None)
    return [int(clip) for clip in np.flatnonzero(inside_s >= CLIP_LENGTH_S / 2 - 1e-9)]


def saliency(question: Question, clips: list[int], rng: np.random.Generator) -> list[list[int]]:
    """Scores 0..4 of three simulated raters a clip: highest mid-action; each rater leans and errs."""
    middle_s = (np.array(clips) + 0.5) * CLIP_LENGTH_S
    height = np.zeros(len(clips))
    for start_s, end_s in question.windows_s:
        share = np.clip((middle_s - start_s) / (end_s - start_s), 0, 1)
        inside = (middle_s >= start_s - 0.5) & (middle_s <= end_s + 0.5)
        height = np.maximum(height, np.where(inside, np.sin(np.pi * share), 0))
    leaning = rng.normal(0, 0.4, RATERS)
    scores = 1.9 + 1.8 * height[:, None] + leaning + rng.normal(0, 0.55, (len(clips), RATERS))
    return np.clip(np.rint(scores), 0, 4).astype(int).tolist()


def row(question: Question, qid: int, film: Film, rng: np.random.Generator) -> dict[str, object]:
    """One line of an annotation file (datasets.md, section 2)."""
    clips = relevant_clips(question.windows_s, film.duration_s)
    return {
        "qid": qid,
        "query": question.text,
        "vid": film.vid,
        "duration": film.duration_s,
        "relevant_windows": [list(window) for window in question.windows_s],
        "relevant_clip_ids": clips,
        "saliency_scores": saliency(question, clips, rng) if clips else [],
    }
