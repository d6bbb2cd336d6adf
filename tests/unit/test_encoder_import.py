"""Published weights become ours without running what they hold: real formats, small networks."""

import pickle
import re

import numpy as np
import pytest
import torch

from momentkit.convert.encoders import import_encoder, read_caffe2
from momentkit.core.errors import ConfigError, WeightsError
from momentkit.features.cnn14 import FRONT_END, Cnn14, Cnn14Config
from momentkit.features.encoders import EncoderOptions, load_encoders
from momentkit.features.slowfast import SlowFast, SlowFastConfig

DEPTHS = (1, 2, 1, 1)
ENTRIES = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}


def random_state(network):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }


def caffe2_name(name):
    """The authors' torch name -> Caffe2's."""
    stage = int(name[1])
    if match := re.fullmatch(r"s\d_fuse\.(bn|conv_f2s)\.(\w+)", name):
        base = "t_pool1" if stage == 1 else f"t_res{stage}_{DEPTHS[stage - 2] - 1}_branch2c_bn"
        return f"{base}_subsample_w" if match[1] != "bn" else f"{base}_subsample_bn_{ENTRIES[match[2]]}"
    prefix = "t_" if "pathway1" in name else ""
    if match := re.fullmatch(r"s1\.pathway\d_stem\.(bn|conv)\.(\w+)", name):
        return f"{prefix}conv1_w" if match[1] == "conv" else f"{prefix}res_conv1_bn_{ENTRIES[match[2]]}"
    match = re.fullmatch(r"s\d\.pathway\d_res(\d)\.(branch1|branch2\.[abc])(_bn)?\.(\w+)", name)
    branch = match[2].replace(".", "")
    end = f"bn_{ENTRIES[match[4]]}" if match[3] else "w"
    return f"{prefix}res{stage}_{match[1]}_{branch}_{end}"


@pytest.fixture(scope="module")
def slowfast():
    return random_state(SlowFast(SlowFastConfig(depths=DEPTHS, width=8)))


def write_caffe2(path, state, **more):
    blobs = {
        caffe2_name(name): value.numpy()
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    blobs |= {"pred_w": np.zeros((4, 9), np.float32), "lr": np.float32([0.1]), "model_iter": np.int64([3])}
    blobs |= {"conv1_w_momentum": np.ones((8, 3, 1, 7, 7), np.float32), **more}
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))


def test_the_model_zoo_s_slowfast_file_is_read_under_the_authors_names(slowfast, tmp_path):
    write_caffe2(tmp_path / "SLOWFAST.pkl", slowfast)
    output = tmp_path / "slowfast.safetensors"
    card = import_encoder(tmp_path / "SLOWFAST.pkl", "slowfast", output)
    assert card.options["depths"] == DEPTHS and "SLOWFAST.pkl, sha256 " in card.notes
    encoder = load_encoders("slowfast", EncoderOptions(source=output)).frames
    loaded = encoder._network.state_dict()
    assert loaded.keys() == slowfast.keys()
    for name, value in slowfast.items():
        torch.testing.assert_close(loaded[name], value, rtol=0, atol=0)
    assert encoder.contract.revision.startswith("sha256:")


def test_the_published_names_are_caffe2_s():
    names = {caffe2_name(name) for name in SlowFast(SlowFastConfig(depths=DEPTHS, width=8)).state_dict()
             if not name.endswith("num_batches_tracked")}  # fmt: skip
    assert {
        "conv1_w", "t_conv1_w", "res_conv1_bn_s", "t_res_conv1_bn_riv", "t_pool1_subsample_w",
        "t_pool1_subsample_bn_rm", "res2_0_branch1_w", "res2_0_branch1_bn_b", "t_res3_1_branch2a_w",
        "t_res3_1_branch2c_bn_subsample_w", "t_res3_1_branch2c_bn_subsample_bn_s",
    } <= names  # fmt: skip


def test_a_slowfast_checkpoint_of_torch_is_read_too(slowfast, tmp_path):
    state = {**slowfast, "head.projection.weight": torch.zeros(4, 9), "head.projection.bias": torch.zeros(4)}
    torch.save({"epoch": 3, "model_state": state}, tmp_path / "slowfast.pyth")
    torch.save(
        {"model_state": state}, tmp_path / "old.pyth", _use_new_zipfile_serialization=False
    )  # torch below 1.6
    for name in ("slowfast", "old"):
        import_encoder(tmp_path / f"{name}.pyth", "slowfast", tmp_path / f"{name}.safetensors")
    revisions = {
        load_encoders("slowfast", EncoderOptions(source=tmp_path / f"{name}.safetensors")).frames.contract
        for name in ("slowfast", "old")
    }
    assert len(revisions) == 1


class Run:
    """What a hostile pickle holds."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("encoder", ["slowfast", "cnn14"])
def test_a_file_that_asks_for_code_is_refused_by_name_and_nothing_runs(encoder, tmp_path):
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"blobs": {"conv1_w": Run(tmp_path / "ran")}}))
    torch.save({"model": Run(tmp_path / "ran")}, tmp_path / "evil.pth")
    for name in ("evil.pkl", "evil.pth"):
        with pytest.raises(WeightsError, match=r"is refused: .*nothing was executed or written"):
            import_encoder(tmp_path / name, encoder, tmp_path / "out.safetensors")
    with pytest.raises(WeightsError, match=r"it asks for \w+\.open, which could run code"):
        read_caffe2(tmp_path / "evil.pkl")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out.safetensors").exists()


def test_an_array_of_objects_is_refused(slowfast, tmp_path):
    write_caffe2(tmp_path / "odd.pkl", slowfast, odd=np.array([{}], object))
    with pytest.raises(WeightsError, match="something else than numbers"):
        read_caffe2(tmp_path / "odd.pkl")


def test_a_damaged_file_is_refused_at_every_cut(slowfast, tmp_path):
    write_caffe2(tmp_path / "whole.pkl", slowfast)
    data = (tmp_path / "whole.pkl").read_bytes()
    for cut in (0, 1, 2, 10, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.pkl").write_bytes(data[:cut])
        with pytest.raises(WeightsError):
            import_encoder(tmp_path / "cut.pkl", "slowfast", tmp_path / "out.safetensors")


def test_a_missing_parameter_is_named_and_nothing_is_written(slowfast, tmp_path):
    state = {name: value for name, value in slowfast.items() if name != "s3_fuse.bn.weight"}
    write_caffe2(tmp_path / "short.pkl", state)
    with pytest.raises(WeightsError, match=r"s3_fuse\.bn\.weight is missing"):
        import_encoder(tmp_path / "short.pkl", "slowfast", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def write_cnn14(path, melw=None):
    state = random_state(Cnn14(Cnn14Config(width=2, embedding=12)))
    bank = torch.from_numpy(FRONT_END.filters()).float()
    extra = {
        "spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024),
        "logmel_extractor.melW": bank if melw is None else melw,
        "fc_audioset.weight": torch.zeros(527, 12),
        "fc_audioset.bias": torch.zeros(527),
    }
    torch.save({"iteration": 600000, "model": {**extra, **state}}, path)
    return state


def test_the_published_cnn14_file_is_read_without_front_end_and_classes(tmp_path):
    state = write_cnn14(tmp_path / "Cnn14_mAP=0.431.pth")
    import_encoder(tmp_path / "Cnn14_mAP=0.431.pth", "cnn14", tmp_path / "cnn14.safetensors")
    encoder = load_encoders("cnn14", EncoderOptions(source=tmp_path / "cnn14.safetensors")).sound
    loaded = encoder._network.state_dict()
    assert loaded.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(loaded[name], value, rtol=0, atol=0)
    assert (encoder.contract.encoder, encoder.contract.layer) == ("PANN CNN14", "embedding")


def test_a_cnn14_trained_behind_another_filter_bank_is_refused(tmp_path):
    write_cnn14(tmp_path / "Cnn14_16k.pth", melw=torch.zeros(257, 64))
    with pytest.raises(WeightsError, match="another mel filter bank"):
        import_encoder(tmp_path / "Cnn14_16k.pth", "cnn14", tmp_path / "out.safetensors")


def test_weights_of_one_encoder_are_not_taken_for_another_s(tmp_path):
    write_cnn14(tmp_path / "cnn14.pth")
    import_encoder(tmp_path / "cnn14.pth", "cnn14", tmp_path / "cnn14.safetensors")
    with pytest.raises(WeightsError, match=r"weights of PANN CNN14, not of facebookresearch"):
        load_encoders("slowfast", EncoderOptions(source=tmp_path / "cnn14.safetensors"))
    with pytest.raises(WeightsError, match="features import"):
        load_encoders("cnn14", EncoderOptions(source=tmp_path / "cnn14.pth"))
    torch.save({"model_state": {"fc1.weight": torch.zeros(2, 2)}}, tmp_path / "other.pyth")
    with pytest.raises(WeightsError, match="no SlowFast network"):
        import_encoder(tmp_path / "other.pyth", "slowfast", tmp_path / "out.safetensors")
    with pytest.raises(ConfigError, match="nothing to import for 'clip'"):
        import_encoder(tmp_path / "cnn14.pth", "clip", tmp_path / "out.safetensors")
