"""The CLIP encoders against their definitions, on a small random checkpoint that is written here."""

import json

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from momentkit.core.contract import FeatureContract, StreamContract
from momentkit.core.errors import FeatureError, FeatureMismatchError, QueryError
from momentkit.features.clip import load_clip
from momentkit.features.encoders import contract_of, create_encoders, encoder_by_name
from momentkit.features.extract import encode_text
from momentkit.features.pictures import Preprocess

SIDE, WIDTH, PROJECTED, PLACES = 32, 16, 12, 20
WORDS = ["dog", "sled", "pulls", "a", "the", "runs"]


def write_tokenizer(folder):
    letters = sorted({letter for word in WORDS for letter in word})
    merges, pieces = [], [*letters, *(letter + "</w>" for letter in letters)]
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merge = f"{parts[0]} {parts[1]}"
            if merge not in merges:
                merges.append(merge)
                pieces.append(parts[0] + parts[1])
            parts = [parts[0] + parts[1], *parts[2:]]
    vocabulary = {
        piece: i for i, piece in enumerate(dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"]))
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return vocabulary


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "tiny-clip"
    folder.mkdir()
    vocabulary = write_tokenizer(folder)
    torch.manual_seed(0)
    shared = {"hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {name: vocabulary[f"<|{word}|>"] for name, word in (("bos_token_id", "startoftext"),)}
    config = CLIPConfig(
        text_config={
            **shared,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": PLACES,
            "eos_token_id": vocabulary["<|endoftext|>"],
            "pad_token_id": vocabulary["<|endoftext|>"],
            **tokens,
        },
        vision_config={**shared, "image_size": SIDE, "patch_size": 8},
        projection_dim=PROJECTED,
    )
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    settings = {
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder, model, settings


def frames_of(*sizes):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (65, 41), (40, 131), (20, 20)])
def test_preprocessing_is_the_one_of_the_checkpoint_s_publisher(size):
    ours = Preprocess(shorter_side=SIDE, crop=SIDE)(frames_of(size))
    theirs = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})(
        frames_of(size), return_tensors="np"
    )["pixel_values"]
    assert ours.shape == (1, 3, SIDE, SIDE)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_a_square_frame_of_the_right_size_is_only_scaled_and_shifted():
    frame = frames_of((SIDE, SIDE))[0]
    ours = Preprocess(shorter_side=SIDE, crop=SIDE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))([frame])
    by_hand = (frame / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    np.testing.assert_allclose(ours[0].transpose(1, 2, 0), by_hand, atol=1e-6)


def test_the_crop_is_the_middle_of_a_wide_frame():
    frame = np.zeros((SIDE, 3 * SIDE, 3), np.uint8)
    frame[:, SIDE : 2 * SIDE] = 255
    square = Preprocess(shorter_side=SIDE, crop=SIDE, mean=(0, 0, 0), std=(1, 1, 1))([frame])
    assert square.min() == 1.0


def test_image_features_are_pooled_projected_and_one_row_a_frame(checkpoint):
    folder, model, settings = checkpoint
    frames = frames_of((48, 64), (65, 41), (32, 32))
    encoder, _ = load_clip(folder, clip_length_s=2.0)
    preprocess = Preprocess(
        shorter_side=SIDE, crop=SIDE, mean=settings["image_mean"], std=settings["image_std"]
    )
    with torch.no_grad():
        states = model.vision_model(torch.from_numpy(preprocess(frames))).last_hidden_state
        wanted = model.visual_projection(model.vision_model.post_layernorm(states[:, 0]))
    np.testing.assert_allclose(encoder.encode_frames(frames), wanted.numpy(), atol=1e-5)
    assert (encoder.contract.dim, encoder.contract.fps, encoder.contract.layer) == (
        PROJECTED,
        0.5,
        "image_embeds",
    )
    assert encoder.contract.crop == f"centre {SIDE}"


def test_text_features_are_states_of_all_tokens_after_the_last_norm_without_projection(checkpoint):
    folder, model, _ = checkpoint
    seen = []
    handle = model.text_model.final_layer_norm.register_forward_hook(lambda *call: seen.append(call[-1]))
    _, encoder = load_clip(folder)
    words_LE = encoder.encode_text(["a dog pulls the sled"])[0].words_LE
    vocabulary = json.loads((folder / "vocab.json").read_text())
    tokens = [f"{word}</w>" for word in ("a", "dog", "pulls", "the", "sled")]
    ids = [vocabulary[token] for token in ("<|startoftext|>", *tokens, "<|endoftext|>")]
    with torch.no_grad():
        model.text_model(input_ids=torch.tensor([ids]))
    handle.remove()
    assert words_LE.shape == (7, WIDTH)
    np.testing.assert_allclose(words_LE, seen[0][0].numpy(), atol=1e-5)


def test_a_sentence_gets_the_same_states_alone_and_among_others(checkpoint):
    _, encoder = load_clip(checkpoint[0])
    alone = encoder.encode_text(["a dog runs"])[0].words_LE
    among = encoder.encode_text(["the sled", "a dog runs", "a dog pulls the sled"])[1].words_LE
    np.testing.assert_array_equal(alone, among)


def test_rows_have_unit_length_after_the_door(checkpoint):
    _, encoder = load_clip(checkpoint[0])
    words_LE = encode_text(["a dog runs"], encoder)[0].words_LE
    np.testing.assert_allclose(np.linalg.norm(words_LE, axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("sentence", ["", "   ", "\n"])
def test_an_empty_sentence_is_refused(checkpoint, sentence):
    _, encoder = load_clip(checkpoint[0])
    with pytest.raises(QueryError, match="empty"):
        encoder.encode_text([sentence])


def test_a_sentence_that_does_not_fit_is_refused_not_cut(checkpoint):
    _, encoder = load_clip(checkpoint[0])
    assert len(encoder.encode_text(["dog " * (PLACES - 2)])[0].words_LE) == PLACES
    with pytest.raises(QueryError, match=f"{PLACES - 1} word pieces.*takes {PLACES - 2}"):
        encoder.encode_text(["dog " * (PLACES - 1)])


def test_the_revision_of_a_directory_is_the_checksum_of_its_weights(checkpoint):
    first, _ = load_clip(checkpoint[0])
    assert first.contract.revision.startswith("sha256:") and len(first.contract.revision) == 23
    assert load_clip(checkpoint[0])[0].contract == first.contract


def test_a_folder_without_clip_is_refused(tmp_path):
    with pytest.raises(FeatureError, match="no CLIP checkpoint"):
        load_clip(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(FeatureError, match="no CLIP checkpoint"):
        load_clip(tmp_path)


def test_a_clip_folder_without_weights_is_refused_even_when_it_has_a_pickle(checkpoint, tmp_path):
    for name in ("config.json", "vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((checkpoint[0] / name).read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(FeatureError, match="cannot load the CLIP encoder"):
        load_clip(tmp_path)


def contract(**stream):
    video = {
        "encoder": "tiny-clip",
        "layer": "image_embeds",
        "dim": PROJECTED,
        "fps": 0.5,
        "crop": f"centre {SIDE}",
    }
    text = StreamContract(encoder="tiny-clip", layer="last_hidden_state", dim=WIDTH)
    return FeatureContract(video=(StreamContract(**(video | stream)),), text=text, clip_length_s=2.0)


def test_encoders_made_for_weights_satisfy_the_weights_contract(checkpoint):
    wanted = contract(dtype="float16")
    frames, text = create_encoders(wanted, sources=[checkpoint[0]])
    wanted.require(contract_of(frames, text))
    assert [one.clip_length_s for one in frames] == [2.0]


def test_a_copy_of_a_published_encoder_on_disk_stands_for_it(checkpoint):
    wanted = contract(encoder="openai/clip-vit-base-patch32")
    wanted = wanted.model_copy(
        update={"text": wanted.text.model_copy(update={"encoder": wanted.video[0].encoder})}
    )
    frames, text = create_encoders(wanted, sources=[checkpoint[0]])
    wanted.require(contract_of(frames, text))


@pytest.mark.parametrize(
    ("change", "named"),
    [({"dim": 512}, "dim is 12"), ({"fps": 1.0}, "fps"), ({"revision": "abc"}, "revision")],
)
def test_an_encoder_that_differs_from_the_weights_is_refused_by_field(checkpoint, change, named):
    with pytest.raises(FeatureMismatchError, match=named):
        create_encoders(contract(**change), sources=[checkpoint[0]])


def test_an_encoder_that_cannot_run_here_is_named():
    with pytest.raises(FeatureError, match=r"slowfast-r50.*not available"):
        create_encoders(contract(encoder="slowfast-r50"))


def test_of_several_streams_the_one_that_cannot_be_encoded_is_named(checkpoint):
    one = contract()
    two = one.model_copy(update={"video": (one.video[0], one.video[0].model_copy(update={"encoder": "i3d"}))})
    with pytest.raises(FeatureError, match=r"'i3d'.*not available"):
        create_encoders(two, sources=[checkpoint[0]])


def test_an_encoder_name_nobody_knows_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(FeatureError, match=r"tiny, clip, siglip.* and directories"):
        encoder_by_name("clipp")
    with pytest.raises(FeatureError, match="no CLIP checkpoint"):
        encoder_by_name(tmp_path)


def test_a_directory_names_an_encoder(checkpoint):
    frames, text = encoder_by_name(checkpoint[0], clip_length_s=1.0)
    assert frames.contract.fps == 1.0 and text.contract.encoder == "tiny-clip"
