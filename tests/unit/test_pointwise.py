"""Our dropout and PReLU do what torch's do."""

import torch
from torch.testing import assert_close

from momentkit.nn.pointwise import Dropout, PReLU, dropout


def test_prelu_and_its_gradients_equal_torchs() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(4, 7, 5), torch.randn(4, 7, 5)
    ours, theirs = PReLU(init=0.4), torch.nn.PReLU(init=0.4)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    (ours(a) * weight).sum().backward()
    (theirs(b) * weight).sum().backward()
    assert_close(ours(x), theirs(x))
    assert_close(a.grad, b.grad)
    assert_close(ours.weight.grad, theirs.weight.grad)


def test_dropout_keeps_the_mean_and_drops_the_asked_share() -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(1000, 1001), 0.3)
    assert abs(float((dropped == 0).float().mean()) - 0.3) < 2e-3
    assert abs(float(dropped.mean()) - 1) < 3e-3
    # Neighbours come from one random word and must still be independent.
    zero = (dropped.flatten()[: 4 * (dropped.numel() // 4)] == 0).float().view(-1, 4)
    correlation = torch.corrcoef(zero.T) - torch.eye(4)
    assert correlation.abs().max() < 0.01


def test_dropout_follows_torchs_seed_and_is_off_in_evaluation() -> None:
    x = torch.randn(50)
    layer = Dropout(0.5).train()
    draws = []
    for _ in range(2):
        torch.manual_seed(1)
        draws.append(layer(x))
    assert torch.equal(*draws) and not torch.equal(draws[0], x)
    assert layer.eval()(x) is x and dropout(x, 0.0) is x
