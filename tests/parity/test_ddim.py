"""Our sampler equals stored runs of two published programs, whose networks were replaced by toys.

`ddim_span`: DiffusionDet's sampler and noising on spans. `gaussian`: the guided-diffusion code's tables,
noising and DDIM on unevenly spaced steps.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from momentkit.diffusion.samplers import add_noise, ddim
from momentkit.diffusion.schedules import cosine_betas, linear_betas, schedule

FOLDER = Path(__file__).parent / "components"
SPANS, GAUSSIAN = np.load(FOLDER / "ddim_span.npz"), np.load(FOLDER / "gaussian.npz")


def to_fractions(x: torch.Tensor) -> torch.Tensor:
    return (x.clamp(-2, 2) / 2 + 1) / 2


def test_spans_denoise_as_stored_at_every_step() -> None:
    weights = torch.from_numpy(SPANS["W"])

    def estimate(x, time):
        fractions = (to_fractions(x).float() @ weights + 0.1 * np.sin(6 * time / 1000)).sigmoid()
        return (2 * fractions - 1) * 2, None

    start, fresh = torch.from_numpy(SPANS["x_in"][0]), list(torch.from_numpy(SPANS["noise"]))
    answer, trace = ddim(estimate, start, schedule("cosine"), 4, eta=float(SPANS["eta"]), fresh=fresh)
    assert [step.time for step in trace] == SPANS["times"][:-1].tolist()
    for name, ours in (("x_in", "x"), ("x0", "start"), ("eps", "noise")):
        stored = np.stack([getattr(step, ours).numpy() for step in trace])
        assert_allclose(stored, SPANS[name], rtol=0, atol=1e-6, err_msg=name)
    assert_allclose(answer, SPANS["x0"][-1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", range(4))
def test_spans_are_noised_as_stored(case: int) -> None:
    stored = {key: SPANS[f"q{case}_{key}"] for key in ("t", "gt", "noise", "pad_normal", "span")}
    padding = stored["pad_normal"] / 6 + 0.5
    padding[:, 1] = padding[:, 1].clip(1e-4)
    signal = torch.from_numpy(np.concatenate([stored["gt"], padding]) * 2 - 1)[None] * 2
    time_B = torch.from_numpy(stored["t"])[None]
    noisy = add_noise(signal, torch.from_numpy(stored["noise"])[None], schedule("cosine"), time_B)
    assert_allclose(to_fractions(noisy)[0], stored["span"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name,betas", [("linear", linear_betas()), ("cosine", cosine_betas())])
def test_tables_are_the_stored_ones(name: str, betas: torch.Tensor) -> None:
    assert_allclose(betas, GAUSSIAN[f"betas_{name}"], rtol=1e-12, atol=1e-15)
    assert_allclose(schedule(name), GAUSSIAN[f"ac_{name}"], rtol=1e-12)


# The released code computes the second run's first step in float32, where it loses most digits.
@pytest.mark.parametrize(
    "run,name,eta,bound,tolerance", [(0, "linear", 0.0, 9.0, 5e-6), (1, "cosine", 1.0, 1.0, 1e-3)]
)
def test_unevenly_spaced_steps_are_the_stored_ones(run, name, eta, bound, tolerance) -> None:
    stored = {key: torch.from_numpy(GAUSSIAN[f"run{run}_{key}"]) for key in ("x", "noise", "map")}
    weights = torch.from_numpy(GAUSSIAN["W"])

    def estimate(x, time):
        return (torch.tanh(x @ weights) * 0.8 + 1e-4 * time).clamp(-bound, bound), None

    times = stored["map"].flip(0).tolist()
    answer, trace = ddim(
        estimate, stored["x"][0], schedule(name), times, eta=eta, fresh=list(stored["noise"])
    )
    ours = torch.stack([*(step.x for step in trace), answer])
    assert_allclose(ours, stored["x"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("run,name", [(0, "linear"), (1, "cosine")])
def test_noising_at_unevenly_spaced_steps_is_the_stored_one(run: int, name: str) -> None:
    signal, time, noise, noisy = (
        torch.from_numpy(GAUSSIAN[f"run{run}_{key}"]) for key in ("q_x0", "q_t", "q_noise", "q")
    )
    kept = torch.from_numpy(GAUSSIAN[f"run{run}_map"])
    assert_allclose(add_noise(signal, noise, schedule(name), kept[time]), noisy, rtol=0, atol=5e-6)
