"""The bundled weights on unseen synthetic films, through the way a user's film takes.

The same questions are asked four ways: of the film (mp4, decode, encode, find), of features drawn directly
from the film's state, of the film with another film's sentences, and answered by the location prior.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from momentkit.core.types import Query, VideoFeatures
from momentkit.data.synthetic.descriptor import direct_features
from momentkit.data.synthetic.film import write_film
from momentkit.data.synthetic.questions import CLIP_LENGTH_S, absent, questions
from momentkit.data.synthetic.world import Film
from momentkit.features.extract import finish_rows
from momentkit.metrics.presence import auroc
from momentkit.metrics.submission import score_moment_rows
from momentkit.predict.encoded import EncodedVideo
from momentkit.predict.grounder import Grounder
from momentkit.predict.result import Result
from momentkit.train.baselines import prior_rows

WAYS = ("film", "features", "film, another film's sentences", "location prior")
SHOWN = ("MR-full-R1@0.5", "MR-full-R1@0.7", "MR-full-mIoU", "MR-full-mAP")


@dataclass
class Asked:
    """Answers so far: rows by way, the truth, how probable what is there and what is missing was called."""

    truth: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {way: [] for way in WAYS})
    there: list[float] = field(default_factory=list)
    missing: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, dict[str, float]]:
        """Way -> figure -> percent; and for films how well presence is told, as AUROC."""
        result = {}
        for way, rows in self.rows.items():
            brief = score_moment_rows(rows, self.truth, protocol="cgdetr").figures["brief"]
            result[way] = {name: brief[name] for name in SHOWN}
        result["film"]["presence-AUROC"] = round(100 * auroc(np.array(self.there), np.array(self.missing)), 2)
        return result


def ask_films(
    grounder: Grounder,
    films: Sequence[Film],
    prior_N2: NDArray[np.float64],
    folder: Path,
    progress: Callable[[int], None] = lambda films: None,
) -> Asked:
    """Ask each film its questions in all ways.

    Args:
        grounder: with the bundled encoders.
        films: none of them seen in training.
        prior_N2: from `fit_location_prior` on the training set.
        folder: where each film is written, one after the other under one name.
        progress: called after each film.
    """
    asked = Asked()
    foreign: list[str] = [question.text for question in _of(films[-1])[0]]
    for number, film in enumerate(films):
        found, missing = _of(film)
        texts = [question.text for question in found]
        path = write_film(film, folder / "film.mp4", height=144, width=256, fps=12)
        video = grounder.encode(path)
        direct = EncodedVideo(name=film.vid, features=_direct(film, grounder))
        others = [foreign[index % len(foreign)] for index in range(len(texts))]
        first = len(asked.truth)
        answers = {WAYS[0]: grounder.find(video, texts), WAYS[1]: grounder.find(direct, texts)}
        answers[WAYS[2]] = grounder.find(video, others)
        for way, results in answers.items():
            asked.rows[way] += [_row(result, first + i) for i, result in enumerate(results)]
        queries = [
            Query(qid=first + i, text=q.text, vid=film.vid, duration_s=film.duration_s, windows_s=q.windows_s)
            for i, q in enumerate(found)
        ]
        asked.rows[WAYS[3]] += prior_rows(queries, prior_N2)
        asked.truth += [
            {
                "qid": query.qid,
                "duration": query.duration_s,
                "relevant_windows": [list(window) for window in query.windows_s or ()],
            }
            for query in queries
        ]
        asked.there += [_occurs(result) for result in answers[WAYS[0]]]
        if missing:
            asked.missing += [_occurs(r) for r in grounder.find(video, [q.text for q in missing])]
        foreign = texts
        progress(number + 1)
    return asked


def _of(film: Film) -> tuple[Any, Any]:
    """Questions that the film answers, and as many that it does not."""
    rng = np.random.default_rng([film.seed, 5])
    return questions(film, 4, rng), absent(film, 4, rng)


def _direct(film: Film, grounder: Grounder) -> VideoFeatures:
    rows_TC = direct_features(film, np.random.default_rng([film.seed, 6]), CLIP_LENGTH_S)
    return VideoFeatures(
        features_TD=finish_rows(rows_TC, grounder.contract.video[0]),
        clip_length_s=CLIP_LENGTH_S,
        duration_s=float(film.duration_s),
        contract=grounder.contract,
    )


def _row(result: Result, number: int) -> dict[str, Any]:
    windows = [[moment.start_s, moment.end_s, moment.score] for moment in result.moments]
    return {"qid": number, "pred_relevant_windows": windows or [[0.0, 0.0, 0.0]]}


def _occurs(result: Result) -> float:
    """The calibrated probability; of weights that have none the best score."""
    if result.not_found_probability is not None:
        return 1 - result.not_found_probability
    return result.moments[0].score if result.moments else 0.0
