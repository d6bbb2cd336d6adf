"""Weights that need two frame encoders together, as published SlowFast + CLIP checkpoints do."""

import json
import sys
from dataclasses import asdict

import av
import numpy as np
import pytest
import torch
from test_clip_encoder import checkpoint  # noqa: F401 - a fixture
from test_encoder_slowfast import shaken

from momentkit.cli.main import main
from momentkit.core.contract import FeatureContract
from momentkit.core.errors import FeatureError, FeatureMismatchError
from momentkit.core.types import VideoFeatures
from momentkit.core.weights import WeightsCard, save_weights
from momentkit.features.encoders import EncoderOptions, load_encoders
from momentkit.features.folder import extract_film
from momentkit.features.slowfast import SLOWFAST_NAME, SlowFast, SlowFastConfig
from momentkit.features.store import join_streams, prepare_rows, read_video_stream
from momentkit.models.registry import create_model
from momentkit.predict.encoded import EncodedVideo
from momentkit.predict.grounder import load

CLIP_NAME = "openai/clip-vit-base-patch32"
SMALL = SlowFastConfig(depths=(1,), width=4, alpha=4, beta=4, fuse_kernel=3)


@pytest.fixture(scope="module")
def places(checkpoint, tmp_path_factory):  # noqa: F811
    """A film, both encoders on disk, and random weights that take their streams: SlowFast first."""
    folder = tmp_path_factory.mktemp("streams")
    film, slowfast = folder / "film.mp4", folder / "slowfast.safetensors"
    rng = np.random.default_rng(0)
    with av.open(str(film), "w") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for _ in range(25):
            picture = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    network = shaken(SlowFast(SMALL))
    save_weights(slowfast, network.state_dict(), WeightsCard(model=SLOWFAST_NAME, options=asdict(SMALL)))
    return folder, film, checkpoint[0], slowfast


def encoders_at(places):
    _, _, clip, slowfast = places
    both = load_encoders(clip, EncoderOptions(name=CLIP_NAME))
    return load_encoders("slowfast", EncoderOptions(source=slowfast)).frames, both.frames, both.text


@pytest.fixture(scope="module")
def weights(places):
    motion, frames, text = encoders_at(places)

    def save(name="published.safetensors", **changes):
        streams = (motion.contract, frames.contract.model_copy(update=changes))
        contract = FeatureContract(video=streams, text=text.contract, clip_length_s=2.0)
        torch.manual_seed(0)
        options = {"hidden": 32, "heads": 4, "video_dim": contract.video_dim, "text_dim": text.contract.dim}
        model = create_model("flashvtg", **options)
        card = WeightsCard(model="flashvtg", options=asdict(model.config), features=contract)
        return save_weights(places[0] / name, model.state_dict(), card)

    return save


def test_find_encodes_both_streams_in_the_declared_order(places, weights, tmp_path, monkeypatch, capsys):
    _, film, clip, slowfast = places
    path = weights()
    arguments = ["find", film, "a dog runs", "--model", path, "--json", "--encoder", clip]
    monkeypatch.setattr(sys, "argv", ["momentkit", *map(str, [*arguments, "--encoder", slowfast])])
    with pytest.raises(SystemExit) as stop:
        main()
    answer = json.loads(capsys.readouterr().out)[0]
    assert not stop.value.code and len(answer["saliency"]) == 2
    assert answer["encoder"] == f"{SLOWFAST_NAME} + {CLIP_NAME}"

    streams = []  # the long way: feature files, read and joined as a data set's are
    for encoder in encoders_at(places)[:2]:
        rows_TD = read_video_stream(extract_film(film, encoder, tmp_path / encoder.contract.layer))
        streams.append(prepare_rows(rows_TD, "l2"))
    grounder = load(path, encoder=[slowfast, clip])
    features = VideoFeatures(
        features_TD=join_streams(streams)[0], clip_length_s=2.0, duration_s=2.5, contract=grounder.contract
    )
    by_hand = grounder.find(EncodedVideo(name="film.mp4", features=features), "a dog runs")
    assert answer["saliency"] == pytest.approx(by_hand.saliency, abs=2e-5)
    for seen, wanted in zip(answer["moments"], by_hand.moments, strict=False):
        assert [seen[key] for key in ("start_s", "end_s", "score")] == pytest.approx(
            [wanted.start_s, wanted.end_s, wanted.score], abs=2e-3
        )
    assert answer["moments"]


def test_each_stream_is_checked_by_its_own_contract(places, weights):
    _, _, clip, slowfast = places
    path = weights("other.safetensors", revision="sha256:0123456789abcdef")
    with pytest.raises(FeatureMismatchError, match="video revision"):
        load(path, encoder=[clip, slowfast])


def test_an_encoder_that_is_wanting_superfluous_or_given_twice_is_named(places, weights):
    _, _, clip, slowfast = places
    path = weights()
    with pytest.raises(FeatureError, match=r"facebookresearch/slowfast.*give its file.*features import"):
        load(path, encoder=clip)
    with pytest.raises(FeatureError, match="two encoders of one family"):
        load(path, encoder=[clip, slowfast, clip])
    with pytest.raises(FeatureMismatchError, match=r"slowfast\) that these weights do not use"):
        load("flashvtg", encoder=slowfast)
    with pytest.raises(FeatureError, match="one dual encoder; 2 are given"):
        load("zeroshot", encoder=[clip, slowfast])
    with pytest.raises(FeatureError, match="no encoder 'nowhere'"):
        load(path, encoder=[clip, "nowhere"])


def test_the_shared_space_is_found_in_whichever_stream_it_is(places, weights, monkeypatch):
    _, _, clip, slowfast = places
    grounder = load(weights(), encoder=[clip, slowfast])
    seen = []

    def promising(video_TD, sentences_BD, windows):
        seen.append(video_TD)
        return np.ones((len(sentences_BD), len(windows)), dtype=bool)

    monkeypatch.setattr("momentkit.predict.grounder.promising", promising)
    monkeypatch.setattr("momentkit.predict.grounder.COARSE_WINDOWS", 1)
    motion, frames = (stream.dim for stream in grounder.contract.video)
    rows_TD = np.random.default_rng(0).normal(size=(100, motion + frames)).astype(np.float32)
    features = VideoFeatures(
        features_TD=rows_TD, clip_length_s=2.0, duration_s=200.0, contract=grounder.contract
    )
    grounder.find(EncodedVideo(name="film", features=features), "a dog runs")
    np.testing.assert_array_equal(seen[0], rows_TD[:, motion:])
