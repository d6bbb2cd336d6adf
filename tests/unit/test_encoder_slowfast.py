"""SlowFast against its definition: names, shapes, sampling, and the network written a second time."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from momentkit.core.errors import FeatureError
from momentkit.features.slowfast import (
    SlowFast,
    SlowFastConfig,
    SlowFastEncoder,
    frame_offsets_s,
    options_of,
    slow_frames,
)

SMALL = SlowFastConfig(depths=(1, 2), width=8, alpha=4, beta=4, fuse_kernel=5)
# From the authors' code; slow inputs carry the fused channels (64 + 16, 256 + 64, 512 + 128, 1024 + 256).
PUBLISHED_SHAPES = {
    "s1.pathway0_stem.conv.weight": (64, 3, 1, 7, 7),
    "s1.pathway1_stem.conv.weight": (8, 3, 5, 7, 7),
    "s1.pathway1_stem.bn.running_mean": (8,),
    "s1_fuse.conv_f2s.weight": (16, 8, 7, 1, 1),
    "s1_fuse.bn.weight": (16,),
    "s2.pathway0_res0.branch1.weight": (256, 80, 1, 1, 1),
    "s2.pathway0_res0.branch1_bn.weight": (256,),
    "s2.pathway0_res0.branch2.a.weight": (64, 80, 1, 1, 1),
    "s2.pathway0_res2.branch2.c_bn.bias": (256,),
    "s2.pathway1_res0.branch2.a.weight": (8, 8, 3, 1, 1),
    "s3.pathway0_res0.branch1.weight": (512, 320, 1, 1, 1),
    "s3.pathway0_res3.branch2.b.weight": (128, 128, 1, 3, 3),
    "s3_fuse.conv_f2s.weight": (128, 64, 7, 1, 1),
    "s4.pathway0_res0.branch2.a.weight": (256, 640, 3, 1, 1),
    "s4.pathway0_res5.branch2.a.weight": (256, 1024, 3, 1, 1),
    "s4_fuse.conv_f2s.weight": (256, 128, 7, 1, 1),
    "s5.pathway0_res0.branch1.weight": (2048, 1280, 1, 1, 1),
    "s5.pathway0_res2.branch2.a.weight": (512, 2048, 3, 1, 1),
    "s5.pathway1_res2.branch2.b.weight": (64, 64, 1, 3, 3),
    "s5.pathway1_res0.branch1.weight": (256, 128, 1, 1, 1),
}


def shaken(network):
    """Random weights, and running means as after training."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator)
                value.copy_(noise.abs() + 0.5 if name.endswith("running_var") else noise * 0.3)
    return network.eval()


def test_names_and_shapes_are_the_authors():
    with torch.device("meta"):
        network = SlowFast(SlowFastConfig())
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert PUBLISHED_SHAPES.items() <= shapes.items()
    assert not any(name.startswith(("s5_fuse", "head")) for name in shapes)
    blocks = {name.split(".")[1] for name in shapes if name.startswith("s4.pathway1")}
    assert blocks == {f"pathway1_res{index}" for index in range(6)}
    classes = 2304 * 400 + 400
    assert network.dim == 2304
    assert sum(value.numel() for value in network.parameters()) + classes == 34_566_488


def test_only_the_first_block_of_a_stage_has_a_projection():
    with torch.device("meta"):
        names = SlowFast(SlowFastConfig()).state_dict()
    projected = {name.split(".branch1")[0] for name in names if ".branch1." in name}
    assert projected == {f"s{stage}.pathway{path}_res0" for stage in range(2, 6) for path in (0, 1)}


def test_sizes_are_read_off_the_weights():
    assert options_of(SlowFast(SMALL).state_dict()) == {
        "depths": (1, 2),
        "width": 8,
        "alpha": 4,
        "beta": 4,
        "fuse_kernel": 5,
    }


@pytest.mark.parametrize(
    ("seconds", "frames"),
    [(2.0, [0, 1, 3, 5, 7]), (1.0, [0, 0, 1, 2, 3]), (32 / 30, [0, 1, 2, 3, 4])],
)
def test_a_clip_s_32_frames_are_spread_over_its_frames_at_30_a_second(seconds, frames):
    offsets = np.array(frame_offsets_s(seconds)) * 30
    numbers = np.round(offsets).astype(int)
    np.testing.assert_allclose(offsets, numbers, atol=1e-9)
    last = round(30 * seconds) - 1
    assert numbers.tolist() == [i * last // 31 for i in range(32)]
    assert numbers[:5].tolist() == frames and numbers[-1] == last


def test_the_slow_pathway_sees_8_of_the_32_frames_and_the_fast_one_all():
    assert slow_frames(32, 4).tolist() == [i * 31 // 7 for i in range(8)] == [0, 4, 8, 13, 17, 22, 26, 31]
    network, seen = SlowFast(SMALL).eval(), {}
    for path in (0, 1):
        stem = network.get_submodule(f"s1.pathway{path}_stem")
        stem.register_forward_hook(lambda _, args, __, path=path: seen.update({path: args[0][0, 0, :, 0, 0]}))
    numbered = torch.arange(32.0).reshape(1, 1, 32, 1, 1).expand(1, 3, 32, 32, 32)
    with torch.no_grad():
        network(numbered)
    assert seen[1].tolist() == list(range(32))
    assert seen[0].tolist() == [0, 4, 8, 13, 17, 22, 26, 31]


def slowfast_by_definition(w, x, config):
    """Table 1 of the paper, on a dictionary of weights."""

    def norm(x, name):
        shape = (1, -1, 1, 1, 1)
        mean, var = w[f"{name}.running_mean"].view(shape), w[f"{name}.running_var"].view(shape)
        return (x - mean) / (var + 1e-5).sqrt() * w[f"{name}.weight"].view(shape) + w[f"{name}.bias"].view(
            shape
        )

    def conv(x, name, stride=(1, 1, 1)):
        weight = w[f"{name}.weight"]
        return F.conv3d(x, weight, None, stride, [size // 2 for size in weight.shape[2:]])

    def block(x, name, stride):
        way = norm(conv(x, f"{name}.branch2.a"), f"{name}.branch2.a_bn").relu()
        way = norm(conv(way, f"{name}.branch2.b", (1, stride, stride)), f"{name}.branch2.b_bn").relu()
        way = norm(conv(way, f"{name}.branch2.c"), f"{name}.branch2.c_bn")
        if f"{name}.branch1.weight" in w:
            x = norm(conv(x, f"{name}.branch1", (1, stride, stride)), f"{name}.branch1_bn")
        return (x + way).relu()

    paths = [x[:, :, slow_frames(x.shape[2], config.alpha)], x]
    for p in (0, 1):
        stem = f"s1.pathway{p}_stem"
        paths[p] = norm(conv(paths[p], f"{stem}.conv", (1, 2, 2)), f"{stem}.bn").relu()
        paths[p] = F.max_pool3d(paths[p], (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage, depth in enumerate(config.depths, 2):
        fuse = f"s{stage - 1}_fuse"
        lateral = norm(conv(paths[1], f"{fuse}.conv_f2s", (config.alpha, 1, 1)), f"{fuse}.bn").relu()
        paths[0] = torch.cat([paths[0], lateral], 1)
        for p in (0, 1):
            for index in range(depth):
                stride = 2 if stage > 2 and index == 0 else 1
                paths[p] = block(paths[p], f"s{stage}.pathway{p}_res{index}", stride)
    return torch.cat([path.mean((2, 3, 4)) for path in paths], 1)


def test_the_network_is_the_paper_s():
    network = shaken(SlowFast(SMALL))
    x = torch.randn(2, 3, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, wanted = network(x), slowfast_by_definition(network.state_dict(), x, SMALL)
    assert ours.shape == (2, network.dim)
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_frames_are_resized_cut_and_scaled_before_the_network():
    network = shaken(SlowFast(SMALL))
    encoder = SlowFastEncoder(network, "sha256:0", 2.0, side=32)
    frames = list(np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8))
    rows = encoder.encode_frames(frames)
    x = (torch.from_numpy(np.stack(frames)).float() / 255 - 0.45) / 0.225
    with torch.no_grad():
        wanted = network(x.reshape(2, 32, 32, 32, 3).permute(0, 4, 1, 2, 3))
    np.testing.assert_allclose(rows, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))
    np.testing.assert_array_equal(encoder.encode_frames(frames[32:])[0], rows[1])


def test_the_contract_is_the_one_the_configurations_of_published_rows_state():
    with torch.device("meta"):
        network = SlowFast(SlowFastConfig())
    contract = SlowFastEncoder(network, "", 2.0).contract
    assert (contract.encoder, contract.layer) == ("facebookresearch/slowfast-r50-8x8", "pool")
    assert (contract.dim, contract.fps, contract.crop) == (2304, 0.5, "centre 256")


def test_frames_that_are_no_whole_clips_are_refused():
    with pytest.raises(FeatureError, match="32 frames a clip, got 33"):
        SlowFastEncoder(SlowFast(SMALL), "", 2.0).encode_frames([np.zeros((8, 8, 3), np.uint8)] * 33)
