"""A film of any length: the same answers wherever a window's border falls."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from momentkit.core.contract import FeatureContract, StreamContract
from momentkit.core.errors import ConfigError
from momentkit.core.types import Prediction, TextFeatures, VideoFeatures
from momentkit.core.weights import WeightsCard
from momentkit.models.zeroshot import ZeroShot, ZeroShotConfig
from momentkit.predict import grounder as grounder_module
from momentkit.predict import long as long_module
from momentkit.predict.decode import PostProcess
from momentkit.predict.encoded import EncodedVideo
from momentkit.predict.grounder import Grounder
from momentkit.predict.long import WINDOW_S, window_clips, windows_over

DIM = 6
FRAMES = StreamContract(encoder="test", layer="out", dim=DIM, fps=1, crop="none")
WORDS = StreamContract(encoder="test", layer="pooled", dim=DIM)
SENTENCE = "a dog runs"
CLIP = 1.0


class Words:
    """Every sentence is the first direction; it has a vector in the space of the frames too."""

    contract = WORDS

    def encode_text(self, sentences):
        return [TextFeatures(words_LE=np.eye(1, DIM, dtype=np.float32)) for _ in sentences]

    def encode_sentences(self, sentences):
        return np.repeat(np.eye(1, DIM, dtype=np.float32), len(sentences), 0)


class Frames:
    contract, clip_length_s, frame_offsets_s, frame_size = FRAMES, CLIP, (0.0,), None


class Reader:
    """Sees an event of its window to within a third of a clip, and never past the window."""

    def __init__(self):
        self.asked = []

    def __call__(self, batch, *, generator=None):
        rows_TD = batch.video_BTD[0].numpy()
        self.asked.append(len(rows_TD))
        borders = np.flatnonzero(np.diff(np.pad(rows_TD[:, 0] > 0.5, 1).astype(int)))
        spans = borders.reshape(-1, 2).astype(float)
        scores = [rows_TD[first:end, 1].mean() for first, end in borders.reshape(-1, 2)]
        rough = np.sin(7.0 * np.arange(spans.size) + len(spans)).reshape(spans.shape) / 3
        spans = np.clip(spans + rough, 0, len(rows_TD))
        windows = torch.tensor(np.column_stack([spans, scores]).reshape(-1, 3), dtype=torch.float32)
        windows = windows.expand(len(batch.video_BTD), -1, -1)
        return Prediction(
            spans_BQ2=windows[..., :2],
            score_BQ=windows[..., 2],
            valid_BQ=torch.ones(windows.shape[:2], dtype=torch.bool),
            saliency_BT=batch.video_BTD[..., 0],
            span_unit="clip",
        )


def a_grounder(model=None):
    return Grounder(
        name="test",
        card=WeightsCard(model="flashvtg"),
        model=model or Reader(),
        contract=FeatureContract(video=(FRAMES,), text=WORDS, clip_length_s=CLIP, tef=False),
        frames=(Frames(),),
        text=Words(),
        post=PostProcess(),
        device=torch.device("cpu"),
    )


def a_video(events, clips):
    """Clips whose first channel says whether an event is on, the second how sure one can be of it."""
    rows_TD = np.zeros((clips, DIM), np.float32)
    rows_TD[:, 2] = 1
    for number, (start_s, end_s) in enumerate(events):
        middle_s = (np.arange(clips) + 0.5) * CLIP
        inside_T = (middle_s >= start_s) & (middle_s < end_s)
        rows_TD[inside_T, :2] = 1, 0.9 - number / 100
    contract = FeatureContract(video=(FRAMES,), text=WORDS, clip_length_s=CLIP, tef=False)
    features = VideoFeatures(
        features_TD=rows_TD, clip_length_s=CLIP, duration_s=clips * CLIP, contract=contract
    )
    return EncodedVideo(name="film", features=features)


def spans(result):
    return sorted((moment.start_s, moment.end_s) for moment in result.moments)


@st.composite
def event_lists(draw):
    """Up to six events of 3 to 400 s, 3 s apart or more: shorter, as long as, and longer than windows."""
    events, time_s = [], 0.0
    for _ in range(draw(st.integers(1, 6))):
        time_s += draw(st.floats(3, 200))
        length_s = draw(st.one_of(st.floats(3, 70), st.floats(70, 400)))
        events.append((time_s, time_s + length_s))
        time_s += length_s
    return events


@settings(max_examples=80, deadline=None)
@given(events=event_lists(), shift_s=st.floats(0, 150))
def test_shifting_the_content_moves_every_moment_with_it_and_by_no_clip_more(events, shift_s):
    clips = int(events[-1][1]) + 200
    plain = spans(a_grounder().find(a_video(events, clips), SENTENCE))
    moved = [(start + shift_s, end + shift_s) for start, end in events]
    shifted = spans(a_grounder().find(a_video(moved, clips + 150), SENTENCE))
    assert len(plain) == len(shifted) == len(events)
    for (start_s, end_s), before, after in zip(events, plain, shifted, strict=True):
        np.testing.assert_allclose(before, (start_s, end_s), atol=1.01 * CLIP)
        np.testing.assert_allclose(after, np.add(before, shift_s), atol=2 / 3 * CLIP + CLIP)
        np.testing.assert_allclose(after, (start_s + shift_s, end_s + shift_s), atol=1.01 * CLIP)


@settings(max_examples=20, deadline=None)
@given(shift=st.integers(0, 150), seed=st.integers(0, 50))
def test_zeroshot_answers_a_shifted_film_with_the_same_moments(shift, seed):
    rng = np.random.default_rng(seed)
    noise_TD = rng.normal(size=(700, DIM)).astype(np.float32)
    noise_TD[:, 0] = 0.2 * noise_TD[:, 0]
    noise_TD[300:320, 0] += 4

    def find(rows_TD):
        video = a_video([], len(rows_TD))
        video = replace(video, features=replace(video.features, features_TD=rows_TD))
        model = ZeroShot(ZeroShotConfig(video_dim=DIM, text_dim=DIM))
        grounder = replace(a_grounder(model), post=PostProcess(nms="greedy", nms_threshold=0.5))
        return grounder.find(video, SENTENCE).best

    plain, shifted = (
        find(noise_TD),
        find(np.concatenate([noise_TD[550 : 550 + shift], noise_TD[: 700 - shift]])),
    )
    assert abs(plain.start_s - 300) <= 1 and abs(plain.end_s - 320) <= 1
    assert abs(shifted.start_s - shift - plain.start_s) <= 1 and abs(shifted.end_s - shift - plain.end_s) <= 1


def test_a_moment_that_runs_through_many_windows_is_one():
    assert len(spans(a_grounder().find(a_video([(100, 900)], 1200), SENTENCE))) == 1


@pytest.mark.parametrize("clips", [1, 149, 150, 151, 152, 225, 226, 300, 1000])
def test_windows_cover_every_clip_and_overlap_by_half_or_more(clips):
    windows, width = windows_over(clips, CLIP), window_clips(CLIP)
    assert windows[0][0] == 0 and windows[-1][1] == clips
    assert all(end - first == min(width, clips) for first, end in windows)
    for (_, end), (first, _) in pairwise(windows):
        assert end - first >= width / 2
    assert window_clips(CLIP) * CLIP == WINDOW_S


def test_a_film_of_one_window_is_answered_as_ever():
    grounder, video = a_grounder(), a_video([(20, 50)], 150)
    answer, _ = grounder._answer(video.features, [SENTENCE], Words().encode_text([SENTENCE]), 0, False)[0]
    result = grounder.find(video, SENTENCE)
    assert spans(result) == [tuple(np.round(row[:2].astype(float), 3)) for row in answer.windows_N3]


def test_saliency_has_one_entry_a_clip_and_rises_where_the_event_is():
    saliency = np.array(a_grounder().find(a_video([(400, 420)], 1001), SENTENCE).saliency)
    assert len(saliency) == 1001
    np.testing.assert_allclose(saliency, (np.arange(1001) >= 400) & (np.arange(1001) < 420), atol=1e-5)


def test_hours_of_film_are_searched_where_similarity_is_high(monkeypatch):
    """The event is found, most windows are never looked at, and what was not looked at is no highlight."""
    events = [(9000, 9020)]
    grounder, video = a_grounder(), a_video(events, 10800)
    result = grounder.find(video, [SENTENCE, "another"])[0]
    looked = len(grounder.model.asked)
    assert len(result.moments) == 1
    assert abs(result.best.start_s - 9000) <= 1 and abs(result.best.end_s - 9020) <= 1
    assert looked <= long_module.COARSE_KEPT < len(windows_over(10800, CLIP))
    assert len(result.saliency) == 10800 and min(result.saliency) == result.saliency[0]
    monkeypatch.setattr(grounder_module, "COARSE_WINDOWS", 10**6)
    everywhere = a_grounder()
    assert spans(everywhere.find(video, SENTENCE)) == spans(result)
    assert len(everywhere.model.asked) == len(windows_over(10800, CLIP))


def test_a_trace_of_many_windows_is_refused(monkeypatch):
    monkeypatch.setattr(Grounder, "check_trace", lambda self: None)
    with pytest.raises(ConfigError, match="searched in 3 windows"):
        a_grounder().find(a_video([(3, 9)], 300), SENTENCE, trace=True)
