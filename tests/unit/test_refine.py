"""Words refine clips; the best moment weighs them."""

import pytest
import torch
from torch.testing import assert_close

from momentkit.nn.refine import MomentGate, VideoTextRefinement

CLIPS, WIDTH = 6, 4


def refinement() -> VideoTextRefinement:
    torch.manual_seed(0)
    refine = VideoTextRefinement(WIDTH, dropout=0.1).eval()
    for parameter in refine.parameters():
        torch.nn.init.normal_(parameter)
    return refine


def test_refinement_is_the_written_formula_for_one_clip_and_one_word():
    refine = refinement()
    clip, word = torch.randn(1, 1, WIDTH), torch.randn(1, 1, WIDTH)
    real = torch.ones(1, 1, dtype=torch.bool)
    # With one of each all softmax shares are 1: words of the clip = the word, clips of the clip = the clip.
    joined = refine.join(torch.cat([clip, word, clip * word, clip * clip], -1))
    expected = refine.out(torch.cat([joined, word], -1)).relu()
    assert_close(refine(clip, word, real, real), expected)


def test_refinement_of_real_clips_reads_no_padding():
    refine = refinement()
    video, text = torch.randn(1, CLIPS, WIDTH), torch.randn(1, 3, WIDTH)
    clips, words = torch.arange(CLIPS)[None] < 4, torch.arange(3)[None] < 2
    loud_video = video.masked_fill(~clips[..., None], 1e3)
    loud_text = text.masked_fill(~words[..., None], -1e3)
    plain = refine(video[:, :4], text[:, :2], clips[:, :4], words[:, :2])
    assert_close(refine(loud_video, loud_text, clips, words)[:, :4], plain)


def chosen(span_se: tuple[float, float], real: int, faithful: bool) -> list[int]:
    """Clip numbers that the gate picks of a video padded to `CLIPS`; a second, worse query asks for all."""
    gate = MomentGate(1, faithful)
    video = torch.arange(1.0, CLIPS + 1)[None, :, None]
    start, end = span_se
    spans = torch.tensor([[[0.5, 1.0], [(start + end) / 2, end - start]]])
    logits = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])
    mask = torch.arange(CLIPS)[None] < real
    picked, length = gate.clips_of_best(video, mask, logits, spans)
    assert length.tolist() == [CLIPS if faithful else real]
    numbers = [int(value) - 1 for value in picked.flatten()]
    assert all(value == -1 for value in numbers[numbers.index(-1) :]) if -1 in numbers else True
    return [number for number in numbers if number >= 0]


@pytest.mark.parametrize(
    ("span_se", "clean", "released"),
    [
        ((0.3, 0.7), [1, 2], [1, 2, 3, 4]),  # of 4 real clips, of 6 with padding
        ((0.6, 1.4), [2, 3], [3, 4, 5]),  # beyond the end
        ((-0.3, 0.6), [0, 1, 2], []),  # a negative start counts from the end: clip 4 to clip 3
        ((-0.1, 0.99), [0, 1, 2, 3], [5]),  # from clip -1: the last one alone
    ],
)
def test_the_clips_of_the_best_moment(
    span_se: tuple[float, float], clean: list[int], released: list[int]
) -> None:
    assert chosen(span_se, 4, faithful=False) == clean
    assert chosen(span_se, 4, faithful=True) == released


def test_the_gate_is_the_dot_product_with_a_gru_over_the_moment_and_zeros_to_the_end():
    torch.manual_seed(0)
    gate = MomentGate(WIDTH, faithful=False)
    video = torch.randn(1, CLIPS, WIDTH)
    mask = torch.arange(CLIPS)[None] < 5
    span = torch.tensor([[[0.5, 0.2]]])  # clips 2 to 3 of 5
    rows = torch.cat([video[:, 2:4], torch.zeros(1, 3, WIDTH)], 1)
    state = gate.gru(rows)[1][0]
    assert_close(gate(video, mask, torch.zeros(1, 1, 2), span), (video * state[:, None]).sum(-1))
