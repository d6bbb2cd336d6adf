"""BM-DETR: shifted moments, the other sentence, which clips match, the loss of their chances."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from claims.models import pad, random_batch, tiny_model
from momentkit.convert.architecture import read_options
from momentkit.convert.keys import rename
from momentkit.core.errors import ConfigError
from momentkit.core.types import Batch
from momentkit.models.bm_detr import BMDETRConfig, guidance, matched_clips, shift
from momentkit.models.registry import build_model
from momentkit.train.run import create_run_model
from momentkit.train.run_config import parse_run, read_run_config, to_toml

CONFIGS = Path(__file__).parents[2] / "configs"
PARITY = Path(__file__).parents[1] / "parity" / "bm_detr" / "pad4"
# What the published network carries and never uses: learned word positions. The saliency offset is a buffer.
UNUSED = (32 * 256 + 2 * 256) + 1

CLIPS, WORDS = [11, 4, 7], [5, 2, 3]


def numbered(windows: list[list[list[float]]]) -> Batch:
    """Clips that hold their number, in content and in the last (time) channel; labels inside windows."""
    batch = random_batch(CLIPS, WORDS)
    clip_T = torch.arange(11.0)
    video_BTD = clip_T[None, :, None].expand(3, -1, 10).clone()
    windows_clip = tuple(torch.tensor(rows).reshape(-1, 2) for rows in windows)
    inside_BT = matched_clips(windows_clip, batch.video_mask_BT)
    assert batch.targets is not None
    targets = replace(
        batch.targets,
        windows_clip=windows_clip,
        saliency_BT=inside_BT.float() * (clip_T + 1),
        positive_clip_BP=inside_BT.float().argmax(1, keepdim=True),
        negative_clip_BP=(~inside_BT).float().argmax(1, keepdim=True),
    )
    return replace(batch, video_BTD=video_BTD, targets=targets)


WINDOWS = [[[2.0, 5.0]], [[0.0, 4.0]], [[3.4, 5.2]]]


@pytest.mark.parametrize("place", range(5))
def test_a_shifted_moment_is_cut_out_and_put_back_whole(place: int) -> None:
    batch = numbered(WINDOWS)
    moved = shift(batch, torch.tensor([place, 0, place]), time_channels=2, faithful=False)
    content_BT, time_BT = moved.batch.video_BTD[..., 0].long(), moved.batch.video_BTD[..., -1].long()
    assert time_BT.tolist() == [list(range(11))] * 3  # the time channels tell the new places
    for row, moment in ((0, [2, 3, 4]), (1, []), (2, [3, 4, 5])):
        others = [clip for clip in range(CLIPS[row]) if clip not in moment]
        wanted = others[:place] + moment + others[place:] if moment else others
        assert content_BT[row].tolist() == wanted + list(range(CLIPS[row], 11))
    targets = moved.batch.targets
    assert targets is not None
    assert_close(targets.windows_clip[0], torch.tensor([[place, place + 3.0]]))
    assert_close(targets.windows_clip[1], torch.tensor([[0.0, 4.0]]))  # as long as the video: it stays
    assert_close(targets.windows_clip[2], torch.tensor([[place + 0.4, place + 2.2]]))
    before = batch.targets
    assert before is not None
    for row in range(3):
        for old, new in ((before.positive_clip_BP, targets.positive_clip_BP),
                         (before.negative_clip_BP, targets.negative_clip_BP)):  # fmt: skip
            assert content_BT[row, new[row, 0]] == old[row, 0]
        assert_close(targets.saliency_BT[row], before.saliency_BT[row][content_BT[row]])
    assert content_BT[0][moved.matched_BT[0]].tolist() == [2, 3, 4]
    assert content_BT[2][moved.matched_BT[2]].tolist() == [3, 4]  # clips that end within the window


def test_the_published_shift_takes_the_time_along_and_ends_one_clip_short() -> None:
    batch = numbered([[[2.0, 5.0], [7.0, 9.0]], [[0.0, 4.0]], [[3.4, 5.2]]])
    moved = shift(batch, torch.tensor([4, 0, 1]), time_channels=2, faithful=True)
    assert torch.equal(moved.batch.video_BTD[..., 0], moved.batch.video_BTD[..., -1])
    assert moved.batch.video_BTD[0, :, 0].tolist() == [0, 1, 5, 6, 2, 3, 4, 7, 8, 9, 10]
    targets = moved.batch.targets
    assert targets is not None
    assert [window.tolist() for window in targets.windows_clip[:2]] == [[[4, 6]], [[0, 4]]]


def test_a_sample_with_several_windows_or_none_is_not_shifted() -> None:
    batch = numbered([[[2.0, 5.0], [7.0, 9.0]], [], [[3.0, 5.0]]])
    moved = shift(batch, torch.tensor([4, 0, 0]), time_channels=0, faithful=False)
    assert torch.equal(moved.batch.video_BTD[:2], batch.video_BTD[:2])
    assert moved.batch.video_BTD[2, :7, 0].tolist() == [3, 4, 0, 1, 2, 5, 6]


@pytest.mark.parametrize("faithful", [False, True])
def test_places_are_drawn_from_all_there_are(faithful: bool) -> None:
    batch, generator = numbered(WINDOWS), torch.Generator().manual_seed(0)
    model = tiny_model("bm_detr", shifting=True, faithful=faithful)
    draws = [model.shifted(batch, generator).batch.video_BTD[0, :, 0].long().tolist() for _ in range(300)]
    places = [draw.index(2) for draw in draws]
    assert sorted(set(places)) == list(range(8 if faithful else 9))  # published: never at the end
    again = torch.Generator().manual_seed(0)
    assert model.shifted(batch, again).batch.video_BTD[0, :, 0].long().tolist() == draws[0]


def test_shifting_halves_the_terms_and_doubles_them() -> None:
    model, batch = tiny_model("bm_detr", shifting=True, dropout=0.0, input_dropout=0.0), numbered(WINDOWS)
    plain = tiny_model("bm_detr", dropout=0.0, input_dropout=0.0).losses(batch)
    both = model.losses(batch, generator=torch.Generator().manual_seed(0))
    assert both.terms.keys() == plain.terms.keys() | {f"{name}_shifted" for name in plain.terms}
    for name, term in plain.terms.items():
        assert_close(both.terms[name], term)
        assert both.weights[name] == both.weights[f"{name}_shifted"] == plain.weights[name] / 2


def test_padding_moves_no_loss_of_a_shifted_batch() -> None:
    model = tiny_model("bm_detr", shifting=True, dropout=0.0, input_dropout=0.0)
    batch = random_batch([11, 5, 7], WORDS)
    losses = [
        model.losses(given, generator=torch.Generator().manual_seed(1)).terms
        for given in (batch, pad(batch, clips=9, words=6, fill=1e3))
    ]
    for name, term in losses[0].items():
        assert_close(losses[1][name], term, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_the_other_sentence_is_the_given_one_or_the_next_of_the_batch() -> None:
    model, batch = tiny_model("bm_detr"), random_batch(CLIPS, WORDS)
    assert batch.targets is not None
    rolled = replace(
        batch.targets,
        negative_text_BLE=batch.text_BLE[[1, 2, 0]],
        negative_text_mask_BL=batch.text_mask_BL[[1, 2, 0]],
    )
    given = replace(batch.targets, negative_text_BLE=torch.randn(3, 9, 6),
                    negative_text_mask_BL=torch.ones(3, 9, dtype=torch.bool))  # fmt: skip
    implied, same, other = (
        model.stages(replace(batch, targets=targets), negative=True).match_BT
        for targets in (batch.targets, rolled, given)
    )
    assert torch.equal(implied, same) and not torch.allclose(implied, other)
    alone = model.stages(batch).match_BT
    assert (other[batch.video_mask_BT] < alone[batch.video_mask_BT]).all()


def test_matched_clips_are_those_of_any_window_and_at_least_one() -> None:
    mask_BT = torch.arange(8)[None] < torch.tensor([[8], [5]])
    windows = (torch.tensor([[1.0, 2.9999998], [3.2, 3.8], [5.5, 7.4]]), torch.tensor([[3.0, 9.0]]))
    found = [row.nonzero().flatten().tolist() for row in matched_clips(windows, mask_BT)]
    assert found == [[1, 2, 3, 5, 6], [3, 4]]


def test_guidance_by_hand() -> None:
    match_BT = torch.tensor([[0.9, 0.3, 0.1, 0.7], [0.5, 0.6, 0.0, 0.0]])
    matched_BT = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    mask_BT = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]).bool()
    first, second = 1 - 0.6 + 0.1, 1 - 0.55 + 0.0  # nothing is outside in the second
    assert_close(guidance(match_BT, matched_BT, mask_BT), torch.tensor((first + second) / 2))


def test_the_share_of_wrong_matches_has_no_gradient_and_is_published_only() -> None:
    batch = random_batch(CLIPS, WORDS)
    assert "wrong" not in tiny_model("bm_detr").losses(batch).terms
    wrong = tiny_model("bm_detr", faithful=True).losses(batch).terms["wrong"]
    assert not wrong.requires_grad and 0 <= wrong <= 100


@pytest.mark.parametrize("options", [{"contrast": 0}, {"temperature": 0.0}, {"time_channels": -1}])
def test_options_that_cannot_be_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        BMDETRConfig(**options)


@pytest.mark.parametrize("data", ["qvhighlights", "charades"])
def test_the_published_run_has_the_published_number_of_parameters(data: str) -> None:
    config = read_run_config(CONFIGS / f"bm_detr_{data}_slowfast_clip.toml")
    with torch.device("meta"):
        model = create_run_model(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 8_407_973 - UNUSED
    assert parse_run(tomllib.loads(to_toml(config)), "again") == config


def test_a_published_state_tells_its_options_and_loads() -> None:
    state = rename(load_file(PARITY / "state_dict.safetensors"), "bm_detr")
    options = read_options(state, "bm_detr")
    assert (options["contrast"], options["queries"], options["encoder_layers"]) == (24, 5, 2)
    build_model("bm_detr", options).load_state_dict(state)
