"""Questions: true windows, wordings of the right length, near misses that really do not happen."""

import numpy as np
import pytest

from momentkit.data.synthetic.concepts import PASSIVE, colour_role, shape_role
from momentkit.data.synthetic.descriptor import descriptor, direct_features
from momentkit.data.synthetic.grammar import ADJECTIVES, NOUNS, Ask, any_ask, sentence, vocabulary
from momentkit.data.synthetic.plan import make_film
from momentkit.data.synthetic.questions import absent, questions, relevant_clips, row, saliency, windows_of
from momentkit.data.synthetic.world import Actor, Fact

RED_CIRCLE = Actor(colour="red", shape="circle")
FILMS = [make_film(seed) for seed in range(60)]


def fact(role: str, start_s: float, end_s: float, certain: bool = True) -> Fact:
    return Fact(actor=RED_CIRCLE, role=role, start_s=start_s, end_s=end_s, certain=certain)


def test_what_happens_twice_has_two_windows_and_what_overlaps_has_one() -> None:
    facts = (fact("jump", 2, 5), fact("jump", 4, 6), fact("jump", 9, 10), fact("spin", 7, 8))
    assert windows_of(Ask(role="jump", colour="red"), facts) == ((2, 6), (9, 10))
    assert windows_of(Ask(role="jump", colour="blue"), facts) == ()


def test_nothing_is_asked_that_a_viewer_might_judge_otherwise() -> None:
    facts = (fact("left", 2, 5), fact("left", 9, 12, certain=False))
    assert windows_of(Ask(role="left", colour="red"), facts) is None


def test_every_window_is_a_planted_event_of_who_was_asked_for() -> None:
    for film in FILMS:
        for question in questions(film, 6, np.random.default_rng(0)):
            fitting = [each for each in film.facts() if question.ask.fits(each)]
            assert {start for start, _ in question.windows_s} <= {each.start_s for each in fitting}
            assert {end for _, end in question.windows_s} <= {each.end_s for each in fitting}
            assert all(any(a <= e.start_s and e.end_s <= b for a, b in question.windows_s) for e in fitting)


def test_a_negative_fits_no_fact_but_some_of_its_words_do() -> None:
    for film in FILMS:
        for question in absent(film, 3, np.random.default_rng(0)):
            facts, ask = film.facts(), question.ask
            assert not any(ask.fits(each) for each in facts)
            assert any(
                each.role == ask.role or ask.colour == each.actor.colour or ask.shape == each.actor.shape
                for each in facts
            )


def test_sentences_have_3_to_14_words_all_of_them_in_the_vocabulary() -> None:
    rng, known = np.random.default_rng(0), set(vocabulary())
    for _ in range(2000):
        words = sentence(any_ask(rng), rng).split()
        assert 3 <= len(words) <= 14 and set(words) <= known


def test_a_sentence_says_everything_that_is_asked() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        ask = any_ask(rng)
        words = sentence(ask, rng).split()
        asked = [ADJECTIVES[c] for c in (ask.colour, ask.other_colour) if c]
        asked += [NOUNS[s] for s in (ask.shape, ask.other_shape) if s]
        for names in asked:
            assert sum(word in names for word in words) >= asked.count(names), (ask, words)


def test_one_meaning_has_many_wordings() -> None:
    rng = np.random.default_rng(0)
    ask = Ask(role="jump", colour="red", shape="circle")
    assert len({sentence(ask, rng) for _ in range(200)}) > 60


def test_a_clip_counts_where_half_of_it_lies_inside() -> None:
    assert relevant_clips(((2.5, 4.0), (6.0, 6.4)), 8) == [2, 3]


def test_raters_find_the_middle_of_an_action_best() -> None:
    question = next(
        q
        for f in FILMS
        for q in questions(f, 4, np.random.default_rng(1))
        if q.windows_s[0][1] - q.windows_s[0][0] >= 12
    )
    clips = relevant_clips(question.windows_s[:1], 90)
    scores = np.mean(
        [saliency(question, clips, np.random.default_rng(seed)) for seed in range(50)], axis=(0, 2)
    )
    middle = len(scores) // 2
    assert scores[middle] > scores[0] + 0.8 and scores[middle] > scores[-1] + 0.8
    assert len({tuple(each) for each in saliency(question, clips, np.random.default_rng(0))}) > 1


def test_a_row_has_the_published_form() -> None:
    film = FILMS[0]
    line = row(questions(film, 1, np.random.default_rng(0))[0], 3, film, np.random.default_rng(0))
    assert list(line) == [
        "qid",
        "query",
        "vid",
        "duration",
        "relevant_windows",
        "relevant_clip_ids",
        "saliency_scores",
    ]
    assert len(line["saliency_scores"]) == len(line["relevant_clip_ids"])  # type: ignore[arg-type]
    assert all(len(each) == 3 and 0 <= min(each) <= max(each) <= 4 for each in line["saliency_scores"])  # type: ignore[attr-defined]


def concept_match(features_TC: np.ndarray, ask: Ask) -> np.ndarray:
    """Per clip, how much the concepts say that the ask happens: the simplest model there is."""
    score_T = plays(features_TC, ask.role, ask.colour, ask.shape)
    if ask.other_colour or ask.other_shape:
        sides = PASSIVE | {passive: active for active, passive in PASSIVE.items()}
        score_T = np.minimum(score_T, plays(features_TC, sides[ask.role], ask.other_colour, ask.other_shape))
    return score_T


def plays(features_TC: np.ndarray, role: str, colour: str | None, shape: str | None) -> np.ndarray:
    """Per clip, how much the concepts say that an actor plays a role."""
    by_colour = features_TC[:, colour_role(colour, role)] if colour else np.ones(len(features_TC))
    by_shape = features_TC[:, shape_role(shape, role)] if shape else np.ones(len(features_TC))
    return np.minimum(by_colour, by_shape)


def best_run(score_T: np.ndarray, threshold: float = 0.25) -> tuple[float, float]:
    """Start and end of the strongest stretch of clips above a threshold, after a median over three."""
    padded = np.pad(score_T, 1, mode="edge")
    calm_T = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    above_T = np.concatenate([[0], calm_T >= threshold, [0]])
    starts, ends = np.flatnonzero(np.diff(above_T) > 0), np.flatnonzero(np.diff(above_T) < 0)
    if not len(starts):
        return float(score_T.argmax()), float(score_T.argmax() + 1)
    best = int(np.argmax([score_T[start:end].sum() for start, end in zip(starts, ends, strict=True)]))
    return float(starts[best]), float(ends[best])


def iou(one: tuple[float, float], two: tuple[float, float]) -> float:
    overlap = max(0.0, min(one[1], two[1]) - max(one[0], two[0]))
    return overlap / (one[1] - one[0] + two[1] - two[0] - overlap)


@pytest.mark.parametrize("direct", [False, True])
def test_matching_concepts_finds_most_moments(direct: bool) -> None:
    """The world can be solved: from the truth almost always, from what the encoder would say mostly."""
    hits = []
    for film in FILMS:
        clips = direct_features(film, np.random.default_rng(film.seed)) if direct else descriptor(film)
        for question in questions(film, 4, np.random.default_rng(2)):
            found = best_run(concept_match(clips, question.ask))
            hits.append(max(iou(found, window) for window in question.windows_s) >= 0.5)
    assert np.mean(hits) > (0.8 if direct else 0.93)


def test_no_constant_window_finds_many_moments() -> None:
    """The world cannot be solved without looking: the best constant window of the very films asked."""
    asked = [
        (film.duration_s, q.windows_s) for film in FILMS for q in questions(film, 4, np.random.default_rng(2))
    ]
    best = 0.0
    for start in np.arange(0, 1, 0.05):
        for end in np.arange(start + 0.05, 1.01, 0.05):
            hits = [
                any(iou((start * duration_s, end * duration_s), window) >= 0.5 for window in windows)
                for duration_s, windows in asked
            ]
            best = max(best, float(np.mean(hits)))
    assert best < 0.25
