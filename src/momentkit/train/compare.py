"""A model's figures beside what they must be held against: the location prior and the two probes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from momentkit.core.config import build, read_toml
from momentkit.core.errors import ConfigError, DataError
from momentkit.core.files import atomic_write
from momentkit.core.weights import write_presence
from momentkit.data.dataset import DataConfig, GroundingDataset, video_key
from momentkit.data.forms import load_rows
from momentkit.predict.decode import PostProcess
from momentkit.predict.untrained import POST, for_stored, needs_no_weights
from momentkit.predict.weights import GrounderWeights, own_file, read_grounder_weights
from momentkit.train.baselines import OtherText, OtherVideo, fit_location_prior, prior_rows
from momentkit.train.by_query import Details, PerQuery, details, per_query
from momentkit.train.evaluate import Row, answer, evaluate, evaluate_repeatedly, figures
from momentkit.train.presence import FOREIGN, PresenceReport, judge_presence

MODEL, PRIOR = "model", "location prior"
OTHER_TEXT, OTHER_VIDEO = "another query's text", "another video's frames"
CONFIG_FILE = "config.toml"


@dataclass(frozen=True)
class Comparison:
    """Figures of a model, and of what it must beat.

    Attributes:
        figures: who -> figure -> percent; the model first.
        rows: the model's submission rows.
        notes: sentences on what was left out and why.
        deviation: of the model's figures over the seeds; empty where one seed was tried.
        repeats: seeds; the model's figures are means over them, its rows those of the first.
        details: parts of the queries, calibration and misses, of the first seed; None without moments.
        presence: how well the model says that something is not in a video; None where that was not asked.
    """

    figures: Mapping[str, Mapping[str, float]]
    rows: list[Row]
    notes: tuple[str, ...]
    deviation: Mapping[str, float] = field(default_factory=dict)
    repeats: int = 1
    details: Details | None = None
    presence: PresenceReport | None = None

    def to_json(self) -> dict[str, Any]:
        """What `momentkit eval --json` prints."""
        result = {"queries": len(self.rows), "figures": self.figures, "notes": list(self.notes)}
        if self.deviation:
            result |= {"repeats": self.repeats, "deviation": self.deviation}
        if self.details:
            result["details"] = self.details.to_json()
        if self.presence:
            result["presence"] = self.presence.to_json()
        return result


def compare(
    name_or_path: str | Path,
    data: Path | None = None,
    *,
    batch_size: int = 100,
    repeats: int = 1,
    negatives: Path | None = None,
) -> Comparison:
    """Evaluate weights, the location prior and the probes on the same queries.

    Args:
        name_or_path: run directory, weights file, bundled name, or a model without weights ("zeroshot").
        data: a configuration file; or, for weights that lie in their run directory, another root folder or
            annotation file for its [data] section; None = the run's own validation set.
        batch_size: queries a forward.
        repeats: seeds that the model is evaluated with.
        negatives: annotation file of sentences that do not occur in their videos; None = sentences of other
            videos.

    Raises:
        ConfigError: it is not said what the data is.
        FeatureMismatchError: the features are not those the weights were trained with.
    """
    config, split = find_data(name_or_path, data)
    if needs_no_weights(name_or_path):
        model, post = for_stored(str(name_or_path), config.contract), POST
    else:
        weights = read_grounder_weights(name_or_path)
        weights.contract.require(config.contract)
        model, post = _module(weights), weights.post
    dataset = GroundingDataset(config, split)
    absent = None if negatives is None else GroundingDataset(config, str(negatives))
    return compare_model(model, post, dataset, batch_size=batch_size, repeats=repeats, negatives=absent)


def compare_model(
    model: nn.Module,
    post: PostProcess,
    dataset: GroundingDataset,
    *,
    batch_size: int,
    repeats: int = 1,
    negatives: GroundingDataset | None = None,
) -> Comparison:
    """As `compare`, on data sets in memory; `post` is how moments are read off the model's answers."""
    config, queries = dataset.config, dataset.queries
    tried = evaluate_repeatedly(model, dataset, config, post, repeats=repeats, batch_size=batch_size)
    own = tried.first
    table: dict[str, Mapping[str, float]] = {MODEL: tried.mean}
    notes = [f"{own.unlabelled} queries without truth are not scored"] if own.unlabelled else []
    if repeats > tried.count:
        notes.append(
            "repeats are of no use here: the model draws no noise, every seed gives the same answers"
        )
    answers = {MODEL: per_query(own.rows, queries, config)}
    try:
        prior = fit_location_prior(load_rows(config, Path(config.root) / config.train).queries)
        constant = prior_rows(queries, prior)
        table[PRIOR] = figures(constant, queries, config)[0]
        answers[PRIOR] = per_query(constant, queries, config)
    except DataError as error:
        notes.append(f"no {PRIOR}: {error}")
    absent = [] if negatives is None else answer(model, negatives, post, batch_size=batch_size)
    try:
        videos = [video_key(query.vid, config) for query in queries]
        other_texts = [OtherText(dataset, queries, seed, videos) for seed in range(FOREIGN)]
        other_video = OtherVideo(dataset, queries, 2 * config.tef)
    except DataError as error:
        notes.append(f"no probes: {error}")
    else:
        foreign = evaluate(model, other_texts[0], config, post, batch_size=batch_size)
        table[OTHER_TEXT] = foreign.metrics
        table[OTHER_VIDEO] = evaluate(model, other_video, config, post, batch_size=batch_size).metrics
        if negatives is None and _scores_moments(config):
            absent = foreign.rows
            for source in other_texts[1:]:
                absent = absent + answer(model, source, post, batch_size=batch_size)
    behind, presence = details(answers, MODEL), None
    if absent:
        try:
            presence = _presence(own.rows, absent, dataset, negatives)
        except DataError as error:
            notes.append(f"not said whether a sentence occurs: {error}")
    return Comparison(table, own.rows, tuple(notes), tried.deviation, tried.count, behind, presence)


def _scores_moments(config: DataConfig) -> bool:
    """Whether the layout scores moments; the others score clips, whatever the sentence."""
    return config.layout not in ("tvsum", "youtube")


def _presence(
    rows: list[Row], absent: list[Row], dataset: GroundingDataset, negatives: GroundingDataset | None
) -> PresenceReport:
    """Queries with moments against sentences that do not occur."""
    config = dataset.config
    there = [row for row, query in zip(rows, dataset.queries, strict=True) if query.windows_s]
    split = config.val if dataset.split == "val" else Path(dataset.split).name
    kind = "of other videos" if negatives is None else f"of {Path(negatives.split).name}"
    fitted_on = (
        f"{Path(config.root).resolve().name}/{split}: {len(there)} queries, {len(absent)} sentences {kind}"
    )
    videos = [video_key(row["vid"], config) for row in (*there, *absent)]
    return judge_presence(there, absent, fitted_on, videos)


def answers_of(name_or_path: str | Path, data: Path | None = None, *, batch_size: int = 100) -> PerQuery:
    """The values of every query, of weights alone; arguments and errors as of `compare`."""
    weights = read_grounder_weights(name_or_path)
    config, split = find_data(name_or_path, data)
    weights.contract.require(config.contract)
    dataset = GroundingDataset(config, split)
    rows = answer(_module(weights), dataset, weights.post, batch_size=batch_size)
    return per_query(rows, dataset.queries, config)


def keep_presence(name_or_path: str | Path, comparison: Comparison) -> Path:
    """Write the calibration of a comparison into the weights it is of, and nothing else; returns the file.

    Raises:
        WeightsError: bundled weights, or weights of the hub.
        ConfigError: nothing was calibrated.
    """
    path = own_file(name_or_path)
    if comparison.presence is None:
        why = "; ".join(comparison.notes) or "this data set scores clips, not moments"
        raise ConfigError(f"{name_or_path} cannot be calibrated: {why}")
    return write_presence(path, comparison.presence.presence)


def find_data(name_or_path: str | Path, data: Path | None) -> tuple[DataConfig, str]:
    """Options of the data, and the split or annotation file; see `compare`.

    Raises:
        ConfigError: no configuration says what the data is.
    """
    if data is not None and data.suffix == ".toml":
        return _read_data(data), "val"
    path = Path(name_or_path)
    beside = (path if path.is_dir() else path.parent) / CONFIG_FILE
    if not path.exists() or not beside.is_file():
        raise ConfigError(
            f"nothing says how the data of {name_or_path} is read: there is no {beside}; give a "
            "configuration file with a [data] section in place of the data"
        )
    config = _read_data(beside)
    if data is None:
        return config, "val"
    if data.is_dir():
        return replace(config, root=str(data)), "val"
    return config, str(data)


def write_predictions(path: Path, rows: list[Row]) -> Path:
    """Submission rows as JSON lines, as `momentkit score` reads them."""
    return atomic_write(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def _read_data(path: Path) -> DataConfig:
    section = read_toml(path).get("data")
    if not isinstance(section, Mapping):
        raise ConfigError(f"{path} has no [data] section; it says where features and annotations lie")
    return build(DataConfig, section, f"{path} [data]")


def _module(weights: GrounderWeights) -> nn.Module:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return cast(nn.Module, weights.build_model(device))
