"""Schedules and samplers by their definitions."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from numpy.testing import assert_allclose
from torch.testing import assert_close

from momentkit.core.errors import ConfigError
from momentkit.diffusion.samplers import add_noise, ddim, ddim_coefficients, noise_like
from momentkit.diffusion.schedules import cosine_betas, linear_betas, schedule, signal_share, step_times

SHARE = {name: schedule(name) for name in ("cosine", "linear")}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(x: torch.Tensor, time: int) -> tuple[torch.Tensor, int]:
    """Bounded, depends on x and on the step."""
    return torch.tanh(1.3 * x.flip(-1) - 0.2) * (1 - time / 4000), time


def by_the_paper(start, share, times, eta, fresh, estimates):
    """Song et al. 2021, eq. 12 with the root of eq. 16, in numpy float64, written out."""
    x = start.astype(np.float64)
    for index, (time, following) in enumerate(zip(times, [*times[1:], -1], strict=True)):
        a = share[time]
        estimate = network(torch.from_numpy(x), time)[0].numpy()
        if estimates == "signal":
            x0, eps = estimate, (x - np.sqrt(a) * estimate) / np.sqrt(1 - a)
        else:
            x0, eps = (x - np.sqrt(1 - a) * estimate) / np.sqrt(a), estimate
        if following < 0:
            break
        b = share[following]
        sigma = eta * np.sqrt((1 - b) / (1 - a)) * np.sqrt(1 - a / b)
        x = np.sqrt(b) * x0 + np.sqrt(max(1 - b - sigma**2, 0)) * eps + sigma * fresh[index]
    return x0


@pytest.mark.parametrize("estimates", ["signal", "noise"])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_the_update_is_the_published_formula(name, steps, eta, estimates) -> None:
    rng = np.random.default_rng(steps)
    start, fresh = rng.standard_normal((2, 5, 2)), rng.standard_normal((steps, 2, 5, 2))
    ours, _ = ddim(
        network,
        torch.from_numpy(start),
        SHARE[name],
        steps,
        eta=eta,
        estimates=estimates,
        fresh=list(torch.from_numpy(fresh)),
    )
    expected = by_the_paper(start, SHARE[name].numpy(), step_times(1000, steps)[:-1], eta, fresh, estimates)
    assert_allclose(ours.numpy(), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
@pytest.mark.parametrize("steps", [1, 2, 10, 50])  # diffusers spaces evenly only where steps divide 1000
@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_the_update_is_that_of_diffusers(name, steps, prediction, eta) -> None:
    scheduler = DDIMScheduler(
        trained_betas={"cosine": cosine_betas, "linear": linear_betas}[name]().numpy(),
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type=prediction,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    start = torch.randn(2, 5, 2, generator=seeded())
    fresh = [torch.randn(2, 5, 2, generator=seeded(index)) for index in range(steps)]
    x = start
    for index, time in enumerate(scheduler.timesteps.tolist()):
        estimate = network(x, time)[0]
        x = scheduler.step(estimate, time, x, eta=eta, variance_noise=fresh[index]).prev_sample
    ours, trace = ddim(
        network,
        start,
        SHARE[name],
        steps,
        eta=eta,
        estimates="signal" if prediction == "sample" else "noise",
        fresh=fresh,
    )
    assert [step.time for step in trace] == scheduler.timesteps.tolist()
    assert_close(ours, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_any_number_of_steps_is_finite(name, dtype, eta) -> None:
    start = noise_like(torch.empty(1, 3, 2, dtype=dtype), seeded())
    for steps in (1, 2, 3, 5, 7, 10, 26, 50, 333, 1000):
        answer, trace = ddim(network, start, SHARE[name], steps, eta=eta, generator=seeded())
        assert answer.dtype == dtype and len(trace) == steps
        assert all(
            torch.isfinite(values).all() for step in trace for values in (step.x, step.start, step.noise)
        )


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_the_noise_level_after_a_step_is_the_schedules(name, eta) -> None:
    """Implied and fresh noise together have the variance of the next level, for every number of steps."""
    share = schedule(name, 200)
    for steps in range(1, 201):
        times = step_times(200, steps)[:-1]
        for time, following in pairwise(times):
            by = ddim_coefficients(share, time, following, eta)
            assert by.noise >= 0 and by.fresh >= 0
            assert abs(by.noise**2 + by.fresh**2 - (1 - float(share[following]))) < 1e-12


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 5, 50])
def test_a_perfect_network_gives_its_answer_to_the_bit(steps, eta) -> None:
    truth = torch.rand(2, 4, 3, 2)
    start = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    answer, trace = ddim(lambda x, time: (truth, None), start, SHARE["cosine"], steps, eta=eta)
    assert torch.equal(answer, truth.double())
    if eta == 0:  # then nothing but the level changes
        for step in trace:
            assert_close(step.noise, trace[0].noise, rtol=1e-10, atol=1e-10)


def test_a_step_rests_on_its_noise_and_its_signal() -> None:
    _, trace = ddim(
        network, torch.randn(2, 3, 2, dtype=torch.float64), SHARE["cosine"], 6, generator=seeded()
    )
    for step in trace:
        share = float(SHARE["cosine"][step.time])
        assert_close(share**0.5 * step.start + (1 - share) ** 0.5 * step.noise, step.x)
        assert step.aside == step.time


def test_the_start_is_not_written_to() -> None:
    start = torch.randn(2, 3, 2)
    before = start.clone()
    ddim(network, start, SHARE["cosine"], 5)
    assert torch.equal(start, before)


def test_noise_is_the_same_for_every_sample_and_for_more_rows() -> None:
    few, many = (noise_like(torch.empty(size), seeded()) for size in ((3, 5, 2), (2, 40, 2)))
    assert torch.equal(few[0], few[2]) and torch.equal(few[0], many[1, :5])
    assert len(many[0].unique()) == 80


def test_what_is_drawn_next_does_not_depend_on_how_much_was_drawn() -> None:
    following = []
    for rows in (1, 16, 17, 300):
        generator = seeded()
        noise_like(torch.empty(1, rows), generator)
        following.append(noise_like(torch.empty(1, 4), generator))
    assert all(torch.equal(noise, following[0]) for noise in following)
    assert not torch.equal(following[0], noise_like(torch.empty(1, 4), seeded()))


def test_noise_is_standard_normal() -> None:
    noise = noise_like(torch.empty(1, 50_000, 2), seeded())
    assert abs(float(noise.mean())) < 0.01 and abs(float(noise.std()) - 1) < 0.01
    neighbours = torch.corrcoef(torch.stack([noise[0, :-1, 0], noise[0, 1:, 0]]))[0, 1]
    assert abs(float(neighbours)) < 0.02


def test_without_a_generator_torchs_own_decides() -> None:
    draws = []
    for seed in (0, 0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            draws.append(noise_like(torch.empty(1, 4)))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_each_sample_is_noised_at_its_own_step() -> None:
    signal, noise = torch.rand(3, 4, 2), torch.randn(3, 4, 2)
    time_B = torch.tensor([0, 500, 999])
    together = add_noise(signal, noise, SHARE["cosine"], time_B)
    for sample, time in enumerate(time_B):
        share = SHARE["cosine"][time]
        expected = share.sqrt() * signal[sample] + (1 - share).sqrt() * noise[sample]
        assert_close(together[sample], expected.float())


@pytest.mark.parametrize(
    ("steps", "times"),
    [
        (1, [999, -1]),
        (2, [999, 499, -1]),
        (3, [999, 665, 332, -1]),
        (5, [999, 799, 599, 399, 199, -1]),
        (7, [999, 856, 713, 570, 427, 284, 141, -1]),
    ],
)
def test_published_step_lists(steps, times) -> None:
    assert step_times(1000, steps) == times


def test_all_steps_are_visited_where_there_are_as_many() -> None:
    assert step_times(50, 50) == list(range(49, -2, -1))


def test_schedules_fall_from_signal_to_noise() -> None:
    for share in SHARE.values():
        assert share.dtype == torch.float64 and (share[1:] < share[:-1]).all()
        assert 0 < share[-1] < 1e-4 and share[0] > 0.999
    assert float(cosine_betas()[-1]) == 0.999 and int((cosine_betas() == 0.999).sum()) == 1
    assert_close(SHARE["linear"][9], (1 - linear_betas()[:10]).prod())
    assert abs(float(signal_share(linear_betas(100))[-1] - SHARE["linear"][-1])) < 1e-4  # scaled with T


@pytest.mark.parametrize("steps", [0, 1001, -3, [5, 5], [3, 7], [1000, 3], [4, -1], []])
def test_steps_that_cannot_be_are_refused(steps) -> None:
    with pytest.raises(ConfigError, match="steps"):
        ddim(network, torch.randn(1, 2, 2), SHARE["cosine"], steps)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_an_eta_that_cannot_be_is_refused(eta) -> None:
    with pytest.raises(ConfigError, match="eta"):
        ddim(network, torch.randn(1, 2, 2), SHARE["cosine"], 2, eta=eta)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ConfigError, match="'sigmoid'"):
        schedule("sigmoid")
