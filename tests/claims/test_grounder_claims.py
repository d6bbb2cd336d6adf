"""What the grounder promises, whatever the weights: one answer a question, refusals that name the cause."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from momentkit.core.contract import FeatureContract, StreamContract
from momentkit.core.errors import (
    FeatureError,
    FeatureMismatchError,
    MomentkitError,
    QueryError,
    WeightsError,
)
from momentkit.core.types import Batch, Prediction, TextFeatures, VideoFeatures
from momentkit.core.weights import Presence, WeightsCard, save_weights
from momentkit.models.registry import create_model
from momentkit.predict import weights as weights_module
from momentkit.predict.decode import PostProcess
from momentkit.predict.grounder import EncodedVideo, Grounder, load

FRAMES = StreamContract(encoder="test/frames", layer="out", dim=6, fps=1, crop="none")
WORDS = StreamContract(encoder="test/words", layer="out", dim=5)
CONTRACT = FeatureContract(video=(FRAMES,), text=WORDS, clip_length_s=1.0)
OPTIONS = {
    "video_dim": 8,
    "text_dim": 5,
    "hidden": 16,
    "heads": 2,
    "feed_forward": 16,
    "dummies": 2,
    "dummy_layers": 1,
    "cross_layers": 1,
    "encoder_layers": 1,
}
SENTENCES = ["a dog runs", "the cat that sleeps on a red sofa all day", "rain"]


class Frames:
    contract, clip_length_s, frame_offsets_s, frame_size = FRAMES, 1.0, (0.5,), None

    def encode_frames(self, frames):
        return np.stack([np.full(6, frame.mean() / 255, np.float32) for frame in frames])


class Words:
    contract = WORDS

    def encode_text(self, sentences):
        """A row a word, drawn by its letters; words with a z are unknown."""
        return [self._one(sentence.split()) for sentence in sentences]

    def _one(self, words):
        rows = [np.random.default_rng(list(word.encode())).normal(size=5) for word in words]
        return TextFeatures(
            words_LE=np.array(rows, np.float32), unknown_words=tuple(word for word in words if "z" in word)
        )


def a_card(**changes):
    values = {"model": "flashvtg", "options": OPTIONS, "features": CONTRACT, "predict": {"nms": "normal"}}
    return WeightsCard(**(values | changes))


def a_grounder(model=None, **changes):
    torch.manual_seed(3)
    return Grounder(
        name="test",
        card=a_card(**changes),
        model=model or create_model("flashvtg", **OPTIONS).eval(),
        contract=CONTRACT,
        frames=(Frames(),),
        text=Words(),
        post=PostProcess(nms="normal"),
        device=torch.device("cpu"),
    )


def a_video(clips=30, duration_s=None, contract=CONTRACT, seed=0):
    features_TD = np.random.default_rng(seed).normal(size=(clips, 6)).astype(np.float32)
    duration_s = clips - 0.3 if duration_s is None else duration_s
    features = VideoFeatures(
        features_TD=features_TD, clip_length_s=1.0, duration_s=duration_s, contract=contract
    )
    return EncodedVideo(name="park.mp4", features=features)


class Answers:
    """A model that answers the same windows to everything."""

    def __init__(self, *windows_clip, saliency=0.0):
        self.windows, self.saliency = torch.tensor(windows_clip, dtype=torch.float32), saliency

    def __call__(self, batch: Batch, *, generator=None):
        count = len(batch.video_BTD)
        rows = self.windows.expand(count, -1, -1)
        return Prediction(
            spans_BQ2=rows[..., :2],
            score_BQ=rows[..., 2],
            valid_BQ=torch.ones(rows.shape[:2], dtype=torch.bool),
            saliency_BT=torch.full(batch.video_mask_BT.shape, self.saliency),
            span_unit="clip",
        )


def assert_same(one, other):
    assert (one.query, len(one.moments)) == (other.query, len(other.moments))
    for a, b in zip(one.moments, other.moments, strict=True):
        assert (a.start_s, a.end_s, a.score) == pytest.approx((b.start_s, b.end_s, b.score), abs=2e-3)
    assert one.saliency == pytest.approx(other.saliency, abs=1e-4)


def test_an_answer_does_not_depend_on_what_else_is_asked():
    grounder, video = a_grounder(), a_video()
    together = grounder.find(video, SENTENCES)
    for sentence, result in zip(SENTENCES, together, strict=True):
        assert_same(grounder.find(video, sentence), result)
    for result, other in zip(grounder.find(video, SENTENCES[::-1]), together[::-1], strict=True):
        assert_same(result, other)


def test_many_sentences_on_a_long_video_are_split_without_a_trace(monkeypatch):
    grounder, video = a_grounder(), a_video()
    together = grounder.find(video, SENTENCES)
    monkeypatch.setattr("momentkit.predict.grounder.MAX_ATTENTION", 2 * 30**2)
    for one, other in zip(grounder.find(video, SENTENCES), together, strict=True):
        assert_same(one, other)


def test_asking_twice_and_from_threads_gives_the_same_and_moves_no_global_generator():
    grounder, video = a_grounder(), a_video()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, answers = grounder.find(video, SENTENCES), []
    threads = [
        threading.Thread(target=lambda: answers.append(grounder.find(video, SENTENCES))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [first] * 4
    assert torch.equal(before, torch.get_rng_state())


def test_a_question_never_changes_the_video():
    video = a_video()
    before = video.features.features_TD.copy()
    a_grounder().find(video, SENTENCES)
    assert np.array_equal(video.features.features_TD, before)


def test_moments_are_inside_the_video_sorted_and_at_most_top():
    result = a_grounder().find(a_video(clips=17, duration_s=16.4), "a dog runs", top=4)
    assert 1 <= len(result.moments) <= 4 and len(result.saliency) == 17
    assert all(0 <= moment.start_s < moment.end_s <= 16.4 for moment in result.moments)
    scores = [moment.score for moment in result.moments]
    assert scores == sorted(scores, reverse=True) and all(score > 0 for score in scores)


def test_what_suppression_took_or_the_video_does_not_hold_is_no_moment():
    model = Answers((2, 8, 0.9), (2.1, 8.1, 0.8), (40, 50, 0.7), (-4, 3, 0.5))
    moments = a_grounder(model).find(a_video(), "a dog runs").moments
    assert [(m.start_s, m.end_s) for m in moments] == [(2, 8), (0, 3)]
    assert [m.score for m in moments] == pytest.approx([0.9, 0.5], abs=1e-5)


def test_moments_are_inside_the_video_even_where_the_decoding_does_not_clamp():
    grounder = replace(a_grounder(Answers((-4, 3, 0.5), (25, 99, 0.4))), post=PostProcess(clamp=False))
    assert [(m.start_s, m.end_s) for m in grounder.find(a_video(), "rain").moments] == [(0, 3), (25, 29.7)]


def test_the_threshold_leaves_moments_out_and_nothing_else():
    grounder, video = a_grounder(Answers((2, 8, 0.9), (10, 12, 0.3))), a_video()
    everything = grounder.find(video, "a dog runs")
    some = grounder.find(video, "a dog runs", min_confidence=0.5)
    assert some == everything.model_copy(update={"moments": everything.moments[:1]})
    assert grounder.find(video, "a dog runs", min_confidence=0.95).moments == ()


def test_presence_is_said_only_where_it_was_calibrated():
    model = Answers((2, 8, 0.8))
    presence = Presence(slope=2.0, offset=-1.0, fitted_on="test")
    assert a_grounder(model).find(a_video(), "rain").not_found_probability is None
    calibrated = a_grounder(model, presence=presence).find(a_video(), "rain")
    expected = 1 / (1 + np.exp(2 * np.log(0.8 / 0.2) - 1))
    assert calibrated.not_found_probability == pytest.approx(expected, abs=1e-5)
    hopeless = a_grounder(Answers((2, 8, 0.0)), presence=presence).find(a_video(), "rain")
    assert hopeless.not_found_probability == pytest.approx(1, abs=1e-5)


def test_where_presence_is_calibrated_the_threshold_is_on_it():
    presence = Presence(slope=1.0, saliency=0.5, offset=1.0, fitted_on="test")
    grounder = a_grounder(Answers((2, 8, 0.6), (10, 12, 0.2)), presence=presence)
    everything = grounder.find(a_video(), "rain")
    expected = 1 / (1 + np.exp(-(np.log(0.6 / 0.4) + 0.5 * max(everything.saliency) + 1)))
    assert 1 - everything.not_found_probability == pytest.approx(expected, abs=1e-5)
    below, above = (
        grounder.find(a_video(), "rain", min_confidence=expected - 0.001),
        grounder.find(a_video(), "rain", min_confidence=expected + 0.001),
    )
    assert below == everything and len(below.moments) == 2
    assert above == everything.model_copy(update={"moments": ()})


def test_unknown_words_are_said():
    assert a_grounder().find(a_video(), "a zebra and a dog").unknown_words == ("zebra",)


@pytest.mark.parametrize("bad", ["", "  \n\t", 7, "x" * 1001, "a \ud800 b", ["fine", ""], [], [None]])
def test_what_cannot_be_asked_is_refused(bad):
    with pytest.raises(QueryError):
        a_grounder().find(a_video(), bad)


@pytest.mark.parametrize(("top", "least"), [(0, 0.0), (5, 1.5), (5, float("nan"))])
def test_thresholds_without_meaning_are_refused(top, least):
    with pytest.raises(QueryError):
        a_grounder().find(a_video(), "rain", top=top, min_confidence=least)


def changed(**fields):
    return CONTRACT.model_copy(update=fields)


@pytest.mark.parametrize(
    ("contract", "field"),
    [
        (changed(video=(FRAMES.model_copy(update={"encoder": "other"}),)), "video stream 1 encoder"),
        (changed(clip_length_s=2.0), "clip_length_s"),
        (changed(text=WORDS.model_copy(update={"layer": "pooled"})), "text layer"),
        (None, "do not say what made them"),
    ],
)
def test_features_of_something_else_are_refused_by_field(contract, field):
    with pytest.raises(FeatureMismatchError, match=field):
        a_grounder().find(a_video(contract=contract), "rain")


def test_features_whose_width_belies_their_contract_are_refused():
    video = a_video()
    wide = replace(video.features, features_TD=np.zeros((30, 7), np.float32))
    with pytest.raises(FeatureMismatchError, match="7 channels"):
        a_grounder().find(replace(video, features=wide), "rain")


@pytest.mark.parametrize(
    "change",
    [
        {"features_TD": np.full((3, 6), np.nan, np.float32)},
        {"features_TD": np.zeros((0, 6), np.float32)},
        {"duration_s": float("nan")},
        {"clip_length_s": 0.0},
    ],
)
def test_features_without_meaning_are_refused(change):
    with pytest.raises(FeatureError):
        EncodedVideo(name="x", features=replace(a_video().features, **change))


def test_an_encoded_video_answers_the_same_from_a_file(tmp_path):
    grounder, video = a_grounder(), a_video()
    again = EncodedVideo.load(video.save(tmp_path / "park.safetensors"))
    assert grounder.find(again, SENTENCES) == grounder.find(video, SENTENCES)


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: b"{}", lambda data: b"", "weights"])
def test_a_file_that_is_no_encoded_video_is_refused(tmp_path, damage):
    path = a_video().save(tmp_path / "park.safetensors")
    if damage == "weights":
        save_weights(path, {"features": torch.ones(2, 2)}, a_card())
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FeatureError, match="no encoded video"):
        EncodedVideo.load(path)


def test_a_path_in_place_of_an_encoded_video_is_explained():
    with pytest.raises(MomentkitError, match="call encode first"):
        a_grounder().find("match.mp4", "rain")


def test_a_video_of_many_windows_is_answered_to_its_last_clip():
    result = a_grounder().find(a_video(clips=2000), "rain")
    assert len(result.saliency) == 2000 and result.moments
    assert max(moment.end_s for moment in result.moments) <= 1999.7


def test_one_clip_is_a_video():
    result = a_grounder().find(a_video(clips=1, duration_s=0.5), "rain")
    assert len(result.saliency) == 1


def test_an_answer_that_is_not_finite_is_our_error_not_a_moment():
    with pytest.raises(FeatureError, match="not finite"):
        a_grounder(Answers((2, 8, 0.5), saliency=float("nan"))).find(a_video(), "rain")


@pytest.fixture
def saved(tmp_path, monkeypatch):
    def create(contract, *, sources, device):
        return (Frames(),), Words()

    monkeypatch.setattr(weights_module, "create_encoders", create)
    torch.manual_seed(3)
    model = create_model("flashvtg", **OPTIONS)

    def save(name="best.safetensors", tensors=None, **changes):
        return save_weights(tmp_path / name, tensors or model.state_dict(), a_card(**changes))

    return save


def test_a_file_and_a_run_directory_answer_as_the_model_they_hold(saved, tmp_path):
    expected = a_grounder().find(a_video(), SENTENCES)
    for place in (saved(), tmp_path, str(tmp_path)):
        for one, other in zip(load(place).find(a_video(), SENTENCES), expected, strict=True):
            assert_same(one, other)


def test_loading_moves_no_global_generator(saved):
    path = saved()
    before = torch.get_rng_state()
    load(path)
    assert torch.equal(before, torch.get_rng_state())


def test_bundled_weights_are_found_by_name(saved, tmp_path, monkeypatch):
    path = saved("small.safetensors")
    monkeypatch.setattr(weights_module, "bundled_weights", lambda: {"small": path})
    assert load("small").name == "small" and load(path).name == "flashvtg"


def test_weights_that_do_not_say_their_features_are_refused(saved):
    with pytest.raises(WeightsError, match="no feature contract"):
        load(saved(features=None))


def test_weights_of_an_encoder_are_no_grounder(saved):
    with pytest.raises(WeightsError, match="'momentkit/tiny-text', which finds no moments"):
        load(saved(model="momentkit/tiny-text"))


def test_encoders_that_differ_from_the_weights_are_refused_by_field(saved):
    other = changed(text=WORDS.model_copy(update={"revision": "v2"}))
    with pytest.raises(FeatureMismatchError, match="text revision is '', the weights were trained with 'v2'"):
        load(saved(features=other))


def test_tensors_that_do_not_fit_are_named(saved):
    tensors = create_model("flashvtg", **OPTIONS).state_dict()
    name = next(iter(tensors))
    with pytest.raises(WeightsError, match="is missing"):
        load(saved(tensors={key: value for key, value in tensors.items() if key != name}))
    with pytest.raises(WeightsError, match="extra is not part of the network"):
        load(saved(tensors=tensors | {"extra": torch.ones(1)}))
    with pytest.raises(WeightsError, match="has shape"):
        load(saved(options=OPTIONS | {"hidden": 32}))


@pytest.mark.parametrize("name", ["nothing", "no/such/file.safetensors", "gone.safetensors", ""])
def test_a_name_that_leads_nowhere_says_what_there_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"no such file|no run directory"):
        load(name)


def test_an_empty_folder_is_no_run(tmp_path):
    with pytest.raises(WeightsError, match=r"it has no best\.safetensors"):
        load(tmp_path)


def test_a_hub_id_is_asked_of_the_hub_and_its_refusal_is_one_sentence(saved, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    path = saved()
    asked = []

    def download(repository, filename):
        asked.append((repository, filename))
        return str(path)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert load("someone/weights").name == "someone/weights"
    assert asked == [("someone/weights", "model.safetensors")]

    def refuse(repository, filename):
        raise OSError("no connection\nat all")

    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    with pytest.raises(WeightsError, match=r"from the hub: no connection$"):
        load("someone/weights")
