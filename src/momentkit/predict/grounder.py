"""The grounder: encode a video once, ask many questions; returns objects, holds no hidden state.

Shapes   B sentences (all about one video)   T clips   D video channels   L words   E text channels
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from momentkit.core.contract import FeatureContract
from momentkit.core.errors import (
    ConfigError,
    FeatureError,
    FeatureMismatchError,
    MomentkitError,
)
from momentkit.core.timeline import to_seconds
from momentkit.core.types import (
    Batch,
    GroundingModel,
    Moment,
    Prediction,
    SamplingModel,
    TextFeatures,
    VideoFeatures,
    noise_key,
)
from momentkit.core.weights import Presence, WeightsCard
from momentkit.features.base import FrameEncoder, TextEncoder
from momentkit.features.extract import Progress, encode_streams, encode_text
from momentkit.features.sentences import PooledText, share_space
from momentkit.features.store import time_channels
from momentkit.predict.decode import Decoded, PostProcess, decode
from momentkit.predict.encoded import EncodedVideo
from momentkit.predict.long import (
    COARSE_WINDOWS,
    WINDOW_S,
    Part,
    merge,
    promising,
    windows_over,
)
from momentkit.predict.questions import check_thresholds, checked_sentences
from momentkit.predict.result import Result, Trace
from momentkit.predict.sampling import resampled
from momentkit.predict.untrained import untrained
from momentkit.predict.weights import read_grounder_weights
from momentkit.video.limits import DEFAULT_LIMITS, VideoLimits

Steps = list[list[list[float]]]  # start and end in seconds of each span of each step
MAX_ATTENTION = 2**24  # sentences x clips x clips in one forward, so that memory stays bounded


@dataclass(frozen=True, kw_only=True, eq=False)
class Grounder:
    """A model with its weights and encoders. Make one with `load`; threads may share it.

    Attributes:
        name: what it was loaded by; the model's name where that was a path.
        card: what the weights are: training data, licence, figures.
        model: in evaluation mode.
        contract: the features the weights need.
        frames, text: the encoders, checked against `contract`; of frames one for each of its streams.
        post: how windows are read off the model's answer.
        device: where the model runs.
    """

    name: str
    card: WeightsCard
    model: GroundingModel
    contract: FeatureContract
    frames: tuple[FrameEncoder, ...]
    text: TextEncoder
    post: PostProcess
    device: torch.device

    def encode(
        self, path: str | Path, *, limits: VideoLimits = DEFAULT_LIMITS, progress: Progress | None = None
    ) -> EncodedVideo:
        """Read a video and encode its frames: the slow part, done once.

        Args:
            path: any container and codec that `momentkit.video` reads.
            limits: what the file may cost.
            progress: called with clips encoded so far and clips in all.

        Raises:
            VideoError: the file is missing, no video, damaged, or longer than `limits` allow.
        """
        features = encode_streams(path, self.frames, limits, contract=self.contract, progress=progress)
        return EncodedVideo(name=Path(path).name, features=features, path=Path(path))

    @overload
    def find(
        self,
        video: EncodedVideo,
        sentences: str,
        *,
        top: int = ...,
        min_confidence: float = ...,
        seed: int = ...,
        trace: bool = ...,
    ) -> Result: ...

    @overload
    def find(
        self,
        video: EncodedVideo,
        sentences: list[str] | tuple[str, ...],
        *,
        top: int = ...,
        min_confidence: float = ...,
        seed: int = ...,
        trace: bool = ...,
    ) -> list[Result]: ...

    def find(
        self,
        video: EncodedVideo,
        sentences: str | list[str] | tuple[str, ...],
        *,
        top: int = 10,
        min_confidence: float = 0.0,
        seed: int = 0,
        trace: bool = False,
    ) -> Result | list[Result]:
        """Find the moments that answer a sentence, or several in one forward.

        Args:
            video: from `encode`, or made from features that satisfy `contract`.
            sentences: one, or a list; an answer does not depend on what else is asked.
            top: moments kept, best first.
            min_confidence: where the weights are calibrated, no moment is returned for a sentence that occurs
                with a lower probability; else moments with a lower score are left out. 0 keeps all.
            seed: of the noise of models that start from noise, together with the sentence; the others ignore
                it.
            trace: keep the spans of every denoising step in `Result.trace`.

        Returns:
            A `Result`, or a list of them in the order of the sentences.

        Raises:
            ConfigError: a trace of a model that has no steps.
            QueryError: no sentence, an empty one, or one too long.
            FeatureMismatchError: the video was encoded with something else; names the field.
        """
        asked = checked_sentences(sentences)
        check_thresholds(top, min_confidence)
        self._check_video(video)
        if trace:
            self.check_trace()
        words = encode_text(asked, self.text)
        windows = self._windows(video.features)
        if trace and len(windows) > 1:
            raise ConfigError(
                f"{video.name} is searched in {len(windows)} windows, and a trace is kept of one; cut a part "
                f"of {WINDOW_S:g} s from it, or leave the trace out"
            )
        step = max(1, MAX_ATTENTION // (windows[0][1] - windows[0][0]) ** 2)
        answers = [
            answer
            for part in (slice(first, first + step) for first in range(0, len(asked), step))
            for answer in self._search(video.features, asked[part], words[part], seed, trace, windows)
        ]
        results = [
            self._result(video, sentence, word, answer, top, min_confidence, spans)
            for sentence, word, (answer, spans) in zip(asked, words, answers, strict=True)
        ]
        return results[0] if isinstance(sentences, str) else results

    def sampled(self, *, steps: int | None = None, proposals: int | None = None) -> "Grounder":
        """The same grounder, whose model denoises in other steps or with other proposals; None = as it does.

        Raises:
            ConfigError: the model has no such option, or the number cannot be.
        """
        return replace(self, model=resampled(self.model, self.name, steps=steps, proposals=proposals))

    def check_trace(self) -> None:
        """Refuse a trace of a model that answers in one go.

        Raises:
            ConfigError: it has no steps.
        """
        if not isinstance(self.model, SamplingModel):
            raise ConfigError(
                f"{self.name} answers in one go and has no steps to trace; take weights of a model that "
                f"denoises, or leave the trace out"
            )

    def _check_video(self, video: EncodedVideo) -> None:
        if not isinstance(video, EncodedVideo):
            raise MomentkitError(
                f"find takes what encode returns, got {type(video).__name__}; call encode first"
            )
        features = video.features
        if features.contract is None:
            raise FeatureMismatchError(
                f"{video.name}: the features do not say what made them; set their contract or encode the film"
            )
        self.contract.require(features.contract)
        _, width = features.features_TD.shape
        expected = self.contract.video_dim - 2 * self.contract.tef
        if width != expected or features.clip_length_s != self.contract.clip_length_s:
            raise FeatureMismatchError(
                f"{video.name}: features have {width} channels and clips of {features.clip_length_s} s; the "
                f"weights need {expected} channels and {self.contract.clip_length_s} s"
            )

    def _windows(self, video: VideoFeatures) -> list[tuple[int, int]]:
        """First and end clip of each window; one where the model takes any length."""
        clips = video.features_TD.shape[0]
        if getattr(self.model, "any_length", False):
            return [(0, clips)]
        return windows_over(clips, video.clip_length_s)

    def _search(
        self,
        video: VideoFeatures,
        sentences: Sequence[str],
        words: Sequence[TextFeatures],
        seed: int,
        trace: bool,
        windows: Sequence[tuple[int, int]],
    ) -> list[tuple[Decoded, Steps | None]]:
        """As `_answer`, about a film of several windows; of very many, those that look promising."""
        if len(windows) == 1:
            return self._answer(video, sentences, words, seed, trace)
        parts: list[list[Part]] = [[] for _ in sentences]
        asked_BW = self._promising(video, sentences, windows)
        for column, (first, end) in enumerate(windows):
            rows = np.flatnonzero(asked_BW[:, column]).tolist()
            if not rows:
                continue
            seconds = min(end * video.clip_length_s, video.duration_s) - first * video.clip_length_s
            window = replace(video, features_TD=video.features_TD[first:end], duration_s=seconds)
            answers = self._answer(
                window, [sentences[row] for row in rows], [words[row] for row in rows], seed, trace
            )
            for row, (answer, _) in zip(rows, answers, strict=True):
                parts[row].append(Part(first, end, answer))
        clips = video.features_TD.shape[0]
        return [(merge(one, clips, video.clip_length_s, self.post.top), None) for one in parts]

    def _promising(
        self, video: VideoFeatures, sentences: Sequence[str], windows: Sequence[tuple[int, int]]
    ) -> NDArray[np.bool_]:
        """Which windows each sentence is looked for in: all, where they are few or nothing tells."""
        first = 0
        for encoder in self.frames if len(windows) > COARSE_WINDOWS else ():
            end = first + encoder.contract.dim
            if share_space(encoder, self.text):
                pooled = encode_text(sentences, PooledText(encoder, self.text))
                sentences_BD = np.concatenate([one.words_LE for one in pooled])
                return promising(video.features_TD[:, first:end], sentences_BD, windows)
            first = end
        return np.ones((len(sentences), len(windows)), dtype=bool)

    def _answer(
        self,
        video: VideoFeatures,
        sentences: Sequence[str],
        words: Sequence[TextFeatures],
        seed: int,
        trace: bool,
    ) -> list[tuple[Decoded, Steps | None]]:
        """One forward over some sentences."""
        batch = _batch(video, sentences, words, tef=self.contract.tef).to(self.device)
        generator = torch.Generator(self.device).manual_seed(seed)
        with torch.inference_mode():
            prediction = self.model(batch, generator=generator)
        clips = video.features_TD.shape[0]
        count = len(words)
        durations_s = [video.duration_s] * count
        decoded = decode(prediction, [clips] * count, video.clip_length_s, durations_s, self.post)
        steps = _steps(prediction, video) if trace else [None] * count
        return list(zip(decoded, steps, strict=True))

    def _result(
        self,
        video: EncodedVideo,
        sentence: str,
        words: TextFeatures,
        answer: Decoded,
        top: int,
        min_confidence: float,
        steps: Steps | None,
    ) -> Result:
        if not (np.isfinite(answer.windows_N3).all() and np.isfinite(answer.saliency_T).all()):
            raise FeatureError(
                f"{self.name} answers {sentence!r} with a number that is not finite: damaged weights?"
            )
        moments = _moments(answer.windows_N3, video.features.duration_s)
        presence = self.card.presence
        absent = None if presence is None else _not_found(moments, answer.saliency_T, presence)
        kept = _confident(moments, absent, min_confidence)
        return Result(
            query=sentence,
            video=video.name,
            duration_s=round(video.features.duration_s, 3),
            clip_length_s=video.features.clip_length_s,
            moments=kept[:top],
            saliency=tuple(round(float(score), 5) for score in answer.saliency_T),
            not_found_probability=absent,
            model=self.name,
            encoder=" + ".join(stream.encoder for stream in self.contract.video),
            unknown_words=words.unknown_words,
            trace=None if steps is None else Trace.of(steps),
            film=video.path,
        )


def load(
    name_or_path: str | Path = "flashvtg",
    *,
    encoder: str | Path | Sequence[str | Path] | None = None,
    device: str | torch.device | None = None,
) -> Grounder:
    """Load weights with their model and the encoders they need.

    Args:
        name_or_path: bundled weights by name, a .safetensors file, a run directory, a hub id "user/name", or
            a model without weights ("zeroshot").
        encoder: "tiny" or "clip" to insist on that kind, or the directory of a CLIP checkpoint, for machines
            without a network; by default what the weights need. A list for weights of several encoders, in
            any order: CLIP's directory and the `.safetensors` of SlowFast, say.
        device: where the model runs; by default the GPU if there is one.

    Raises:
        WeightsError: nothing of that name, a damaged file, or one that does not say which features it needs.
        FeatureMismatchError: the encoders are not those the weights were trained with; names the field.
        MissingExtraError: the hub or the encoder needs a package that is not installed.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    named = [encoder] if isinstance(encoder, str | Path) else list(encoder or ())
    weights = untrained(name_or_path, named, chosen) or read_grounder_weights(name_or_path)
    frames, text = weights.encoders(named, chosen)
    return Grounder(
        name=weights.name,
        card=weights.card,
        model=weights.build_model(chosen),
        contract=weights.contract,
        frames=frames,
        text=text,
        post=weights.post,
        device=chosen,
    )


def _batch(
    video: VideoFeatures, sentences: Sequence[str], words: Sequence[TextFeatures], *, tef: bool
) -> Batch:
    """The video once a sentence; sentences padded to the longest, which no answer depends on.

    The noise is the sentence's: a film that is renamed or cut answers as before.
    """
    clips, count = video.features_TD.shape[0], len(words)
    rows_TD = video.features_TD
    if tef:
        rows_TD = np.concatenate([rows_TD, time_channels(clips)], 1)
    # Not copied where that is safe: hours of features are large, and no model writes to its input.
    video_TD = torch.from_numpy(rows_TD) if rows_TD.flags.writeable else torch.tensor(rows_TD)
    longest = max(word.words_LE.shape[0] for word in words)
    text_BLE = torch.zeros(count, longest, words[0].words_LE.shape[1])
    mask_BL = torch.zeros(count, longest, dtype=torch.bool)
    for row, word in enumerate(words):
        length = word.words_LE.shape[0]
        text_BLE[row, :length] = torch.tensor(word.words_LE)
        mask_BL[row, :length] = True
    return Batch(
        video_BTD=_tiled(video_TD, count),
        video_mask_BT=torch.ones(count, clips, dtype=torch.bool),
        text_BLE=text_BLE,
        text_mask_BL=mask_BL,
        video_keys=("video",) * count,
        noise_keys=tuple(noise_key(sentence) for sentence in sentences),
    )


def _steps(prediction: Prediction, video: VideoFeatures) -> list[Steps]:
    """Of each sentence the noise and the spans of every step, in seconds, inside the video.

    Spans that are followed from step to step are sorted by their score in the end, those that end up empty
    last.
    """
    assert prediction.start_BQ2 is not None  # `check_trace`
    spans_SBQ2 = torch.stack([prediction.start_BQ2, *prediction.trace]).float().cpu()
    spans_SBQ2 = to_seconds(spans_SBQ2, prediction.span_unit, video.clip_length_s, video.duration_s)
    spans_SBQ2 = spans_SBQ2.clamp(0, video.duration_s)
    if spans_SBQ2.shape[2] == prediction.score_BQ.shape[1]:
        real_BQ = spans_SBQ2[-1, ..., 1] > spans_SBQ2[-1, ..., 0]
        score_BQ = prediction.score_BQ.cpu().masked_fill(~real_BQ, -1)
        order_BQ = score_BQ.argsort(dim=1, descending=True, stable=True)
        spans_SBQ2 = spans_SBQ2.gather(2, order_BQ[None, :, :, None].expand_as(spans_SBQ2))
    rows: list[Steps] = spans_SBQ2.transpose(0, 1).tolist()
    return rows


def _tiled(video_TD: Tensor, count: int) -> Tensor:
    return video_TD[None].expand(count, -1, -1).contiguous()


def _moments(windows_N3: NDArray[np.float32], duration_s: float) -> list[Moment]:
    """Windows cut to the video, without those that are empty there or that suppression gave the score 0."""
    moments = []
    for start_s, end_s, score in windows_N3.astype(float).tolist():
        start_s, end_s = (round(min(max(time_s, 0.0), duration_s), 3) for time_s in (start_s, end_s))
        if end_s > start_s and score > 0:
            moments.append(Moment(start_s=start_s, end_s=end_s, score=round(score, 5)))
    return moments


def _not_found(moments: Sequence[Moment], saliency_T: NDArray[np.float32], presence: Presence) -> float:
    """Chance that the sentence does not occur."""
    best = moments[0].score if moments else 0.0
    return round(1 - float(presence.probability(best, saliency_T.max())), 5)


def _confident(moments: Sequence[Moment], absent: float | None, min_confidence: float) -> tuple[Moment, ...]:
    """What clears a threshold: all or none where it is known how probably the sentence occurs."""
    if absent is None:
        return tuple(moment for moment in moments if moment.score >= min_confidence)
    return tuple(moments) if 1 - absent >= min_confidence else ()
