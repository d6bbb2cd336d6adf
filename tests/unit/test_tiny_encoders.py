"""The bundled encoders: small, repeatable, right about films and wordings they never saw."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from momentkit.core.errors import FeatureError, QueryError, WeightsError
from momentkit.core.weights import read_weights, save_weights
from momentkit.data.synthetic.concepts import (
    COLOURS,
    CONCEPTS,
    ROLES,
    SHAPES,
    colour_role,
    colour_shape,
    shape_role,
)
from momentkit.data.synthetic.descriptor import SAMPLE_OFFSETS_S, descriptor, direct_features
from momentkit.data.synthetic.grammar import vocabulary
from momentkit.data.synthetic.plan import FilmOptions, make_film
from momentkit.data.synthetic.world import Actor, Event, Film, Pose, Scene
from momentkit.data.synthetic.writing import encoded_features
from momentkit.features.tiny import (
    FRAME_OFFSETS_S,
    FRAME_SIZE,
    FrameNet,
    TinyFrameEncoder,
    TinyTextEncoder,
)

FRAMES, TEXT = TinyFrameEncoder.bundled(), TinyTextEncoder.bundled()
ASSETS = resources.files("momentkit") / "assets"
UNSEEN = [make_film(4_000_000_000 + i, FilmOptions(shortest_s=30, longest_s=40)) for i in range(4)]


def two_at_work(red: str, blue: str) -> Film:
    """A red circle and a blue square, each in one action from 2 s to 8 s."""
    rest = (Pose(x=0.5, y=0.6), Pose(x=1.2, y=0.6))
    cycles = {"jump": 7, "spin": 4}
    events = tuple(
        Event(
            action=action, start_s=2, end_s=8, actor=i, begin=rest[i], finish=rest[i], cycles=cycles[action]
        )
        for i, action in enumerate((red, blue))
    )
    cast = (Actor(colour="red", shape="circle"), Actor(colour="blue", shape="square"))
    scene = Scene(start_s=0, end_s=10, backdrop=1, seed=5, cast=cast, entry=rest, events=events)
    return Film(vid="two", seed=5, duration_s=10, scenes=(scene,))


def test_the_weights_are_small() -> None:
    sizes = [(ASSETS / name).read_bytes() for name in ("tiny_frames.safetensors", "tiny_text.safetensors")]
    assert sum(map(len, sizes)) < 1_500_000


def test_the_network_numbers_concepts_as_the_world_does() -> None:
    net = FrameNet(len(COLOURS), len(SHAPES), len(ROLES))
    logits = torch.full((1, sum(net.sizes), 9, 16), -20.0)
    said = (0, 1 + COLOURS.index("green"), 8 + SHAPES.index("heart"), 14 + ROLES.index("sway"))
    logits[0, said, 4, 7] = 20.0
    concepts = net.concepts(logits)[0]
    true = {colour_role("green", "sway"), shape_role("heart", "sway"), colour_shape("green", "heart")}
    assert concepts.shape == (CONCEPTS,) and FRAMES.contract.dim == CONCEPTS
    assert {int(i) for i in torch.nonzero(concepts > 0.5)} == true


def test_products_are_taken_at_one_place_before_the_strongest_counts() -> None:
    """Red at one place and spinning at another is no red thing that spins."""
    net = FrameNet(len(COLOURS), len(SHAPES), len(ROLES))
    logits = torch.full((1, sum(net.sizes), 9, 16), -20.0)
    logits[0, (0, 1 + COLOURS.index("red"), 8), 2, 3] = 20.0
    logits[0, (0, 1 + COLOURS.index("blue"), 8, 14 + ROLES.index("spin")), 6, 12] = 20.0
    concepts = net.concepts(logits)[0]
    assert concepts[colour_role("blue", "spin")] > 0.9 and concepts[colour_role("red", "spin")] < 0.1


def test_the_world_looks_at_the_times_the_encoder_looks_at() -> None:
    assert SAMPLE_OFFSETS_S == FRAME_OFFSETS_S == FRAMES.frame_offsets_s


@pytest.mark.parametrize(("red", "blue"), [("jump", "spin"), ("spin", "jump")])
def test_who_does_what_is_not_mixed_up(red: str, blue: str) -> None:
    features_TC = encoded_features(two_at_work(red, blue), FRAMES)[3:7]
    right = features_TC[:, [colour_role("red", red), colour_role("blue", blue)]]
    wrong = features_TC[:, [colour_role("red", blue), colour_role("blue", red)]]
    assert right.mean() > 0.7 and wrong.mean() < 0.2


def test_films_never_seen_are_read_mostly_right() -> None:
    """Most of what is said to be there is, and most of what is there is said."""
    for film in UNSEEN:
        truth_TC, said_TC = descriptor(film), encoded_features(film, FRAMES)
        whole = (truth_TC > 0.99) | (truth_TC < 0.01)
        hits = ((truth_TC > 0.99) & (said_TC > 0.5)).sum()
        assert hits > 0.8 * (truth_TC > 0.99).sum()
        assert hits > 0.7 * ((said_TC > 0.5) & whole).sum()


def test_direct_features_miss_and_invent_about_as_much_as_the_encoder() -> None:
    shares = []
    for film in UNSEEN:
        truth_TC, drawn_TC = descriptor(film), direct_features(film, np.random.default_rng(film.seed))
        true_TC, false_TC = truth_TC > 0.99, truth_TC < 0.01
        for said_TC in (encoded_features(film, FRAMES), drawn_TC):
            shares.append([(said_TC[true_TC] > 0.5).mean(), (said_TC[false_TC] > 0.5).sum() / true_TC.sum()])
    found, invented = np.reshape(shares, (len(UNSEEN), 2, 2)).mean(0).T
    assert abs(found[0] - found[1]) < 0.08 and 0.75 < found[1] < 0.98
    assert abs(invented[0] - invented[1]) < 0.08 and invented[1] > 0.02


def test_a_clip_is_read_alike_alone_and_among_others() -> None:
    frames = list(np.random.default_rng(0).integers(0, 255, (12, *FRAME_SIZE, 3), np.uint8))
    together = FRAMES.encode_frames(frames)
    alone = np.concatenate([FRAMES.encode_frames(frames[i : i + 4]) for i in (0, 4, 8)])
    assert together.shape == (3, CONCEPTS) and together.dtype == np.float32
    assert np.abs(together - alone).max() < 2e-3  # one step of half precision


@pytest.mark.parametrize(
    "frames", [[], [np.zeros((72, 128, 3), np.uint8)] * 3, [np.zeros((9, 9, 3), np.uint8)] * 4]
)
def test_frames_the_encoder_cannot_take_are_refused(frames: list) -> None:
    with pytest.raises(FeatureError, match="tiny-frames"):
        FRAMES.encode_frames(frames)


def test_every_word_of_the_grammar_is_known() -> None:
    assert set(TEXT.numbers) == set(vocabulary())
    for sentence in ("The red circle jumps!", "a yellow star, chased by the green heart"):
        assert TEXT.encode_text([sentence])[0].unknown_words == ()


def test_unknown_words_are_named_once_and_still_encoded() -> None:
    features = TEXT.encode_text(["a dog that spins and a dog"])[0]
    assert features.unknown_words == ("dog",)
    assert features.words_LE.shape == (7, 96) and np.isfinite(features.words_LE).all()
    cat, first = (TEXT.encode_text([f"a {word} that spins and a {word}"])[0] for word in ("cat", "after"))
    assert (cat.words_LE == features.words_LE).all() and not (first.words_LE == features.words_LE).all()
    assert TEXT.encode_text(["quux corge"])[0].unknown_words == ("quux", "corge")


@pytest.mark.parametrize("sentence", ["", "   ", "?!", "spin " * 33])
def test_a_sentence_without_words_or_with_too_many_is_refused(sentence: str) -> None:
    with pytest.raises(QueryError):
        TEXT.encode_text([sentence])


def test_a_sentence_is_encoded_alike_alone_and_among_others() -> None:
    sentences = ["the red circle jumps", "there is a yellow star being chased by the green heart"]
    together = TEXT.encode_text(sentences)
    for sentence, features in zip(sentences, together, strict=True):
        assert (TEXT.encode_text([sentence])[0].words_LE == features.words_LE).all()


def test_the_contract_names_the_weights() -> None:
    assert FRAMES.contract.encoder == "momentkit/tiny-frames" and len(FRAMES.contract.revision) == 12
    assert TEXT.contract.encoder == "momentkit/tiny-text" and len(TEXT.contract.revision) == 12
    assert FRAMES.contract.revision != TEXT.contract.revision


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    with resources.as_file(ASSETS / "tiny_text.safetensors") as path:
        with pytest.raises(WeightsError, match="tiny-text"):
            TinyFrameEncoder.read(path)
        card, tensors = read_weights(path)
    tensors.pop("norm.weight")
    save_weights(tmp_path / "cut.safetensors", tensors, card)
    with pytest.raises(WeightsError, match="does not fit"):
        TinyTextEncoder.read(tmp_path / "cut.safetensors")
    save_weights(tmp_path / "bare.safetensors", tensors, card.model_copy(update={"options": {"width": 96}}))
    with pytest.raises(WeightsError, match="vocabulary"):
        TinyTextEncoder.read(tmp_path / "bare.safetensors")
