"""Similarity of a sentence and each frame, grouped into moments, without training."""

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from test_clip_encoder import checkpoint, frames_of  # noqa: F401  the fixture is used by its name

from momentkit.cli.models import _describe
from momentkit.core.errors import ConfigError, FeatureMismatchError
from momentkit.core.types import Batch
from momentkit.models.registry import create_model, is_trainable
from momentkit.models.zeroshot import ZeroShot
from momentkit.predict.grounder import load
from momentkit.train.run import create_run_model

D = 8


def a_model(**options):
    return create_model("zeroshot", video_dim=D, text_dim=D, **options).eval()


def a_batch(similar_T, seed=0):
    """A film whose frames have exactly these cosines with the sentence, and other directions at random."""
    rng = np.random.default_rng(seed)
    q_D = np.eye(D)[0]
    others_TD = rng.normal(size=(len(similar_T), D))
    others_TD[:, 0] = 0
    others_TD /= np.linalg.norm(others_TD, axis=1, keepdims=True)
    similar_T = np.asarray(similar_T, dtype=np.float64)[:, None]
    video_TD = (similar_T * q_D + np.sqrt(1 - similar_T**2) * others_TD) * rng.uniform(
        0.5, 2, similar_T.shape
    )
    return Batch(
        video_BTD=torch.tensor(video_TD, dtype=torch.float32)[None],
        video_mask_BT=torch.ones(1, len(similar_T), dtype=torch.bool),
        text_BLE=torch.tensor(3 * q_D, dtype=torch.float32)[None, None],
        text_mask_BL=torch.ones(1, 1, dtype=torch.bool),
    )


def noisy(clips, events, height=0.06, noise=0.01, level=0.2, seed=0):
    similar_T = level + noise * np.random.default_rng(seed).normal(size=clips)
    for first, end in events:
        similar_T[first:end] += height
    return similar_T


def best(prediction, count=1):
    order = prediction.score_BQ[0].argsort(descending=True, stable=True)[:count]
    return [tuple(span) for span in prediction.spans_BQ2[0, order].tolist()]


@pytest.mark.parametrize("seed", range(8))
def test_a_raised_stretch_is_the_best_moment(seed):
    prediction = a_model()(a_batch(noisy(90, [(30, 44)], seed=seed), seed))
    ((first, end),) = best(prediction)
    assert abs(first - 30) <= 1 and abs(end - 44) <= 1 and prediction.score_BQ.max() > 0.6


def test_noise_alone_scores_low():
    scores = [float(a_model()(a_batch(noisy(90, [], seed=s), s)).score_BQ.max()) for s in range(20)]
    assert (
        np.median(scores)
        < 0.5
        < min(float(a_model()(a_batch(noisy(90, [(30, 44)], seed=s), s)).score_BQ.max()) for s in range(20))
    )


def test_level_and_range_of_the_similarities_change_nothing():
    """What the calibration is for: another encoder's cosines lie elsewhere and spread otherwise."""
    shape_T = noisy(60, [(20, 30)])
    plain, other = (a_model()(a_batch(similar_T)) for similar_T in (shape_T, 0.5 + 2.5 * (shape_T - 0.2)))
    torch.testing.assert_close(plain.spans_BQ2, other.spans_BQ2)
    torch.testing.assert_close(plain.score_BQ, other.score_BQ, rtol=0, atol=1e-3)


def test_two_events_are_two_moments_and_a_flicker_does_not_break_one():
    similar_T = noisy(100, [(10, 24), (60, 70)], noise=0.004)
    similar_T[17] = 0.2
    moments = best(a_model(smooth=1)(a_batch(similar_T)), 12)
    assert (10.0, 24.0) in moments and (60.0, 70.0) in moments


def test_a_film_whose_frames_are_all_alike_is_one_run_without_confidence():
    prediction = a_model()(a_batch(np.full(20, 0.3)))
    assert prediction.score_BQ.max() < 0.1


def test_similarity_is_the_cosine_smoothed_and_counted_in_the_films_own_spread():
    similar_T = noisy(30, [(5, 9)])
    saliency_T = a_model(smooth=3)(a_batch(similar_T)).saliency_BT[0].numpy()
    padded_T = np.pad(similar_T, 1)
    weight_T = np.pad(np.ones(30), 1)
    smooth_T = (padded_T[:-2] + 2 * padded_T[1:-1] + padded_T[2:]) / (
        weight_T[:-2] + 2 * weight_T[1:-1] + weight_T[2:]
    )
    middle = np.sort(smooth_T)[14]  # the lower of the two in the middle
    spread = 1.4826 * np.sort(np.abs(smooth_T - middle))[14]
    np.testing.assert_allclose(saliency_T, (smooth_T - middle) / spread, atol=2e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text_dim": 6}, "one space.*video_dim is 8 and text_dim 6.*dual encoder"),
        ({"smooth": 4}, "odd"),
        ({"levels": 0}, "positive"),
        ({"half_score": 0.0}, "half_score"),
    ],
)
def test_options_without_meaning_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        create_model("zeroshot", **({"video_dim": D, "text_dim": D} | options))


def test_the_trainer_refuses_it_with_the_way_to_use_it():
    contract = SimpleNamespace(video_dim=D, text=SimpleNamespace(dim=D), audio_dim=0)
    config = SimpleNamespace(model={"name": "zeroshot"}, data=SimpleNamespace(contract=contract))
    with pytest.raises(
        ConfigError, match=r"nothing to train.*momentkit find VIDEO SENTENCE --model zeroshot"
    ):
        create_run_model(config)
    assert not is_trainable("zeroshot") and is_trainable("flashvtg") and not ZeroShot.trainable


def test_encoders_without_a_shared_space_are_refused():
    with pytest.raises(FeatureMismatchError, match=r"share no space.*dual encoder such as CLIP"):
        load("zeroshot", encoder="tiny")


def write_film(path, event, other):
    """40 s at 5 pictures a second; the event's picture from 12 to 20 s."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=5, options={"crf": "5"})
        video.height, video.width, video.pix_fmt = 64, 64, "yuv420p"
        for number in range(200):
            picture = event if 60 <= number < 100 else other
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 5)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    return path


def test_a_dual_encoder_alone_finds_a_moment_in_a_film(checkpoint, tmp_path):  # noqa: F811
    """Weights at random: which picture is nearer to the sentence is measured, then planted as the event."""
    grounder = load("zeroshot", encoder=checkpoint[0])
    blocks = [np.kron(frame, np.ones((16, 16, 1), np.uint8)) for frame in frames_of((4, 4), (4, 4))]
    sentence = "a dog pulls the sled"
    text_D = grounder.text.encode_text([sentence])[0].words_LE[0]
    near = sorted(blocks, key=lambda one: float(_cosine(grounder.frames[0].encode_frames([one])[0], text_D)))
    video = grounder.encode(write_film(tmp_path / "film.mp4", near[1], near[0]))
    result = grounder.find(video, sentence)
    assert abs(result.best.start_s - 12) <= 1 and abs(result.best.end_s - 20) <= 1
    assert result.best.score > 0.5 and result.model == "zeroshot" and len(result.saliency) == 40
    assert result.not_found_probability is None
    turned = grounder.encode(write_film(tmp_path / "turned.mp4", near[0], near[1]))
    assert grounder.find(turned, sentence).best.start_s != result.best.start_s


def _cosine(a_D, b_D):
    return a_D @ b_D / np.linalg.norm(a_D) / np.linalg.norm(b_D)


def test_the_contract_names_the_pooled_sentence_of_the_frames_encoder(checkpoint):  # noqa: F811
    contract = load("zeroshot", encoder=checkpoint[0]).contract
    assert contract.text.layer == "pooler_output" and contract.text.dim == contract.video[0].dim
    assert contract.text.encoder == contract.video[0].encoder and not contract.tef


def test_the_list_of_models_describes_it():
    parameters, idea, source = _describe("zeroshot")
    assert parameters == "0.0 M" and "similarity" in idea and "2017" in source
