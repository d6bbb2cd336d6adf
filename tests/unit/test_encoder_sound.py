"""The sound encoders and their front end against definitions and a second implementation."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel
from transformers.audio_utils import mel_filter_bank

from momentkit.core.errors import FeatureError
from momentkit.features.cnn14 import FRONT_END, Cnn14, Cnn14Config, Cnn14Encoder
from momentkit.features.encoders import EncoderOptions, load_encoders
from momentkit.features.mel import LogMel, hz_to_mel, mel_to_hz
from momentkit.features.sound import sound_clips

SMALL = Cnn14Config(width=2, embedding=12)


def noise(samples, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


@pytest.mark.parametrize(
    "front_end",
    [FRONT_END, LogMel(sample_rate=48000, window=1024, hop=480, bands=64, lowest_hz=50, highest_hz=14000)],
)
def test_the_filter_bank_is_slaney_s(front_end):
    theirs = mel_filter_bank(
        num_frequency_bins=front_end.window // 2 + 1,
        num_mel_filters=front_end.bands,
        min_frequency=front_end.lowest_hz,
        max_frequency=front_end.highest_hz,
        sampling_rate=front_end.sample_rate,
        norm="slaney",
        mel_scale="slaney",
    )
    np.testing.assert_allclose(front_end.filters(), theirs, rtol=0, atol=1e-9)


def test_the_mel_scale_is_linear_then_logarithmic_and_can_be_undone():
    hz = np.array([0.0, 200.0, 999.0, 1000.0, 6400.0, 14000.0])
    np.testing.assert_allclose(hz_to_mel(hz)[[0, 1, 3, 4]], [0, 3, 15, 42], atol=1e-12)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz)), hz, atol=1e-9)


def test_a_frame_of_the_spectrogram_is_the_transform_of_its_windowed_samples():
    waveform = noise(4000)
    mel = FRONT_END(torch.from_numpy(waveform)[None])[0].numpy()
    assert mel.shape == (4000 // 320 + 1, 64)
    n = np.arange(1024)
    mirrored = np.pad(waveform.astype(np.float64), 512, mode="reflect")
    for frame in (0, 5, 12):
        piece = mirrored[frame * 320 : frame * 320 + 1024] * (0.5 - 0.5 * np.cos(2 * np.pi * n / 1024))
        bins = np.arange(513)[:, None]
        power = np.abs((piece * np.exp(-2j * np.pi * bins * n / 1024)).sum(1)) ** 2
        wanted = 10 * np.log10(np.maximum(power @ FRONT_END.filters(), 1e-10))
        np.testing.assert_allclose(mel[frame], wanted, atol=1e-3)


def test_silence_is_minus_100_decibels():
    assert (FRONT_END(torch.zeros(1, 3200)) == -100).all()


PUBLISHED_SHAPES = {
    "bn0.weight": (64,),
    "conv_block1.conv1.weight": (64, 1, 3, 3),
    "conv_block1.bn1.running_var": (64,),
    "conv_block1.conv2.weight": (64, 64, 3, 3),
    "conv_block4.conv1.weight": (512, 256, 3, 3),
    "conv_block6.conv2.weight": (2048, 2048, 3, 3),
    "conv_block6.bn2.bias": (2048,),
    "fc1.weight": (2048, 2048),
    "fc1.bias": (2048,),
}


def test_cnn14_s_names_and_shapes_are_the_authors():
    with torch.device("meta"):
        network = Cnn14(Cnn14Config())
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert PUBLISHED_SHAPES.items() <= shapes.items()
    classes = 2048 * 527 + 527
    assert sum(value.numel() for value in network.parameters()) + classes == 80_753_615  # stated in the paper


def shaken(network):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                random = torch.randn(value.shape, generator=generator)
                value.copy_(random.abs() + 0.5 if name.endswith("running_var") else random * 0.3)
    return network.eval()


def cnn14_by_definition(w, mel):
    """The paper's table, on a dictionary of weights."""

    def norm(x, name, axis):
        shape = [1] * x.ndim
        shape[axis] = -1
        mean, var, scale, shift = (
            w[f"{name}.{part}"].view(shape) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    x = norm(mel[:, None], "bn0", 3)
    for block in range(1, 7):
        for layer in (1, 2):
            x = F.conv2d(x, w[f"conv_block{block}.conv{layer}.weight"], padding=1)
            x = norm(x, f"conv_block{block}.bn{layer}", 1).relu()
        if block < 6:
            x = F.avg_pool2d(x, (2, 2))
    x = x.mean(3)
    return (F.linear(x.amax(2) + x.mean(2), w["fc1.weight"], w["fc1.bias"])).relu()


def test_cnn14_is_the_paper_s():
    network = shaken(Cnn14(SMALL))
    clips = np.stack([noise(64000, seed) for seed in (0, 1)])
    rows = Cnn14Encoder(network, "", 2.0).encode_sound(clips)
    with torch.no_grad():
        wanted = cnn14_by_definition(network.state_dict(), FRONT_END(torch.from_numpy(clips)))
    assert rows.shape == (2, 12) and (rows > 0).any()
    np.testing.assert_allclose(rows, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


def test_the_shortest_clip_leaves_one_step_and_a_shorter_one_is_refused():
    encoder = Cnn14Encoder(shaken(Cnn14(SMALL)), "", 0.32)
    assert np.isfinite(encoder.encode_sound(noise(10240)[None])).all()
    with pytest.raises(FeatureError, match=r"at least 0\.32 s, got 0\.16"):
        Cnn14Encoder(Cnn14(SMALL), "", 0.16)


def write_clap(folder, **options):
    torch.manual_seed(0)
    text = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    audio = {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 64,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 2, 2],
        **options,
    }
    config = ClapConfig(text_config={**text, "intermediate_size": 16}, audio_config=audio, projection_dim=12)
    model = ClapModel(config).eval()
    model.save_pretrained(folder)
    extractor = ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50)
    extractor.save_pretrained(folder)
    return model, extractor


def test_clap_features_are_the_checkpoint_s_own(tmp_path):
    model, extractor = write_clap(tmp_path)
    encoder = load_encoders(tmp_path, EncoderOptions(clip_length_s=3.0)).sound
    clips = np.stack([noise(3 * 48000, seed) for seed in (0, 1)])
    inputs = extractor(list(clips), sampling_rate=48000, return_tensors="pt")
    with torch.no_grad():
        states = model.audio_model(input_features=inputs["input_features"].float()).pooler_output
        wanted = model.audio_projection(states)
    np.testing.assert_allclose(encoder.encode_sound(clips), wanted, rtol=0, atol=1e-4)
    assert encoder.contract.layer == "audio_embeds" and encoder.sample_rate == 48000


def test_clap_clips_beyond_10_s_and_fused_checkpoints_are_refused(tmp_path):
    write_clap(tmp_path / "plain")
    with pytest.raises(FeatureError, match=r"up to 10 s, got 11"):
        load_encoders(tmp_path / "plain", EncoderOptions(clip_length_s=11.0))
    write_clap(tmp_path / "fused", enable_fusion=True)
    with pytest.raises(FeatureError, match="fused"):
        load_encoders(tmp_path / "fused", EncoderOptions())


@pytest.mark.parametrize("sizes", [(7, 0, 1, 40, 3, 60), (111,), (1,) * 30, ()])
def test_samples_are_cut_into_clips_wherever_the_blocks_end(sizes):
    heard = np.arange(1, sum(sizes) + 1, dtype=np.float32)
    blocks = iter(np.split(heard, np.cumsum(sizes)[:-1]) if sizes else [])
    clips = np.concatenate(list(sound_clips(blocks, 5, 10.4)))
    padded = np.concatenate([heard, np.zeros(60, np.float32)])
    wanted = np.stack([padded[round(i * 10.4) : round(i * 10.4) + 10] for i in range(5)])
    np.testing.assert_array_equal(clips, wanted)
