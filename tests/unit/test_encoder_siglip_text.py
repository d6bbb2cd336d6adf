"""SigLIP, MiniLM and GloVe against definitions, on small random checkpoints that are written here."""

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, SiglipConfig, SiglipModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from momentkit.core.contract import FeatureContract, StreamContract
from momentkit.core.errors import FeatureError, QueryError
from momentkit.features.checkpoint import commit_of, same_weights
from momentkit.features.encoders import EncoderOptions, create_encoders, load_encoders
from momentkit.features.glove import GloveTextEncoder

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
PLACES = 8


def write_siglip(folder):
    words = {word: i for i, word in enumerate(["<pad>", "<eos>", "<unk>", "a", "dog", "runs", "A"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    tokens = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    config = SiglipConfig(
        text_config={
            **SMALL, **tokens, "vocab_size": 7, "max_position_embeddings": PLACES, "projection_size": 16,
        },
        vision_config={**SMALL, "image_size": 32, "patch_size": 8},
    )  # fmt: skip
    model = SiglipModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    settings = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "resample": 2}))
    return model


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "tiny-siglip"
    folder.mkdir()
    return folder, write_siglip(folder)


def frames_of(*sizes):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]


def test_siglip_frames_are_squeezed_scaled_and_pooled_by_the_attention_head(siglip):
    folder, model = siglip
    frames = frames_of((48, 64), (65, 41), (32, 32))
    encoder = load_encoders(folder, EncoderOptions(clip_length_s=1.0)).frames
    theirs = SiglipImageProcessorPil(
        size={"height": 32, "width": 32}, resample=2, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )(frames, return_tensors="pt")
    with torch.no_grad():
        wanted = model.vision_model(**theirs).pooler_output
    np.testing.assert_allclose(encoder.encode_frames(frames), wanted, rtol=0, atol=1e-5)
    assert (encoder.contract.crop, encoder.contract.fps) == ("stretch 32", 1.0)


def test_siglip_text_is_lower_case_and_padded_to_all_places_as_in_training(siglip):
    folder, model = siglip
    encoder = load_encoders(folder, EncoderOptions()).text
    words_LE = encoder.encode_text(["A dog runs"])[0].words_LE
    with torch.no_grad():
        wanted = model.text_model(input_ids=torch.tensor([[3, 4, 5, 1, 0, 0, 0, 0]]))
    np.testing.assert_allclose(words_LE, wanted.last_hidden_state[0, :4], rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        encoder.encode_sentences(["A dog runs"]), wanted.pooler_output, rtol=0, atol=1e-5
    )


def test_siglip_sentences_that_are_empty_or_do_not_fit_are_refused(siglip):
    encoder = load_encoders(siglip[0], EncoderOptions()).text
    with pytest.raises(QueryError, match="empty"):
        encoder.encode_text([" "])
    with pytest.raises(QueryError, match=rf"{PLACES + 1} word pieces.*takes {PLACES}"):
        encoder.encode_text(["dog " * PLACES])


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "tiny-minilm"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "run", "##s"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )
    torch.manual_seed(0)
    model = BertModel(BertConfig(**SMALL, vocab_size=len(words), max_position_embeddings=PLACES)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder, model


def test_minilm_states_are_those_of_all_word_pieces_after_the_last_layer(minilm):
    folder, model = minilm
    encoder = load_encoders(folder, EncoderOptions()).text
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor([[2, 5, 6, 7, 8, 3]])).last_hidden_state[0]
    first = encoder.encode_text(["A dog runs", "a"])[0].words_LE
    np.testing.assert_allclose(first, wanted, rtol=0, atol=1e-5)
    mean = wanted.mean(0)
    np.testing.assert_allclose(
        encoder.encode_sentences(["A dog runs"])[0], mean / mean.norm(), rtol=0, atol=1e-5
    )
    with pytest.raises(QueryError, match=r"9 word pieces.*takes 6"):
        encoder.encode_text(["dog " * 9])


def write_words(folder):
    path = folder / "glove.tiny.3d.txt"
    path.write_text("a 1 0 0\nlight 0 2 0\n. 0 0 3\nlamp 1 1 1\n")
    return path


def test_glove_rows_are_the_file_s_and_unknown_words_are_zero_and_named(tmp_path):
    encoder = load_encoders("glove", EncoderOptions(source=write_words(tmp_path))).text
    first, second = encoder.encode_text(["A light.", "a lamp"])
    np.testing.assert_array_equal(first.words_LE, [[1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(second.words_LE, [[1, 0, 0], [1, 1, 1]])
    assert first.unknown_words == ("light.",) and second.unknown_words == ()
    contract = encoder.contract
    assert (contract.encoder, contract.layer, contract.normalisation) == ("glove.tiny.3d", "words", "none")
    assert contract.dim == 3 and contract.revision.startswith("sha256:")


def test_glove_without_the_full_stop_knows_the_last_word(tmp_path):
    encoder = GloveTextEncoder(write_words(tmp_path), "no_stop")
    np.testing.assert_array_equal(encoder.encode_text(["A light."])[0].words_LE, [[1, 0, 0], [0, 2, 0]])
    assert encoder.contract.layer == "words no_stop"


@pytest.mark.parametrize("content", ["", "word\n", "\n"])
def test_a_file_without_word_vectors_is_refused(content, tmp_path):
    (tmp_path / "words.txt").write_text(content)
    with pytest.raises(FeatureError, match="a word and its numbers"):
        GloveTextEncoder(tmp_path / "words.txt")


@pytest.mark.parametrize(
    ("wanted", "seen", "same"),
    [
        ("", "abc+sha256:1", True),
        ("abc", "abc+sha256:1", True),
        ("abc", "sha256:1", False),
        ("abc+sha256:1", "sha256:1", True),  # a copy on disk of what the hub has
        ("abc+sha256:1", "abd+sha256:1", True),  # a commit that changed only the read-me
        ("abc+sha256:1", "abc+sha256:2", False),
        ("abc", "abd+sha256:1", False),
        ("sha256:1", "abc", False),
    ],
)
def test_weights_are_the_same_by_checksum_else_by_commit(wanted, seen, same):
    assert same_weights(wanted, seen) is same


def test_the_commit_is_read_off_a_revision():
    assert [commit_of(text) for text in ("", "abc", "abc+sha256:1", "sha256:1")] == ["", "abc", "abc", ""]


def test_frames_and_words_of_two_encoders_are_loaded_each_from_its_own(siglip):
    folder, _ = siglip
    frames = load_encoders(folder, EncoderOptions(name="google/siglip2-x")).frames.contract
    text = StreamContract(encoder="momentkit/tiny-text", layer="last_hidden_state", dim=96)
    contract = FeatureContract(video=(frames,), text=text, clip_length_s=2.0)
    (made,), words = create_encoders(contract, sources=[folder])
    assert made.contract == frames and words.contract == text


@pytest.mark.parametrize(("name", "said"), [("slowfast", "SLOWFAST_8x8_R50.pkl"), ("cnn14", "Cnn14_mAP")])
def test_an_encoder_that_needs_a_file_says_how_to_get_it(name, said):
    with pytest.raises(FeatureError, match=f"{said}.*features import"):
        load_encoders(name, EncoderOptions())
