import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, losses, miners, reducers

from published.losses import unit_embedding
from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.losses.hgsl import (
    DecorrelationRegularizer,
    HardGlobalSoftmin,
    decorrelation,
    hard_softmin,
)


def problem(classes: int = 6, dim: int = 8, samples: int = 12, **options):
    torch.manual_seed(0)
    loss = HardGlobalSoftmin(classes, dim, **options).double()
    embeddings = unit_embedding(torch.rand(samples, dim, dtype=torch.float64))
    return loss, embeddings, torch.arange(samples) % classes


def test_with_all_centres_it_is_cross_entropy_of_distances():
    loss, embeddings, labels = problem(k="all")
    logits = -10 / loss.alpha * loss.distances(embeddings)
    assert loss(embeddings, labels)["hard_softmin"].item() == pytest.approx(F.cross_entropy(logits, labels).item())


def test_it_grows_with_k_and_ignores_a_shift():
    loss, embeddings, labels = problem()
    logits = loss.logits(embeddings)
    values = [hard_softmin(logits, labels, k).item() for k in (1, 2, 3, 4, 5, 6)]
    assert values == sorted(values)
    assert values[0] >= 0
    assert values[-1] == hard_softmin(logits, labels, "all").item() == hard_softmin(logits, labels, 99).item()
    assert hard_softmin(logits + 37, labels, 2).item() == pytest.approx(values[1])
    other = HardGlobalSoftmin(6, 8, margin=5.0).double()
    other.load_state_dict(loss.state_dict())
    same = [criterion(embeddings, labels)["loss"].item() for criterion in (loss, other)]
    assert same[0] == pytest.approx(same[1])


def test_one_nearest_centre_makes_it_a_hinge():
    loss, embeddings, labels = problem(k=1, decorrelation_weight=0.0)
    away = loss.distances(embeddings)
    own = away.gather(1, labels[:, None]).squeeze(1)
    expected = 10 / loss.alpha * (own - away.amin(dim=1)).mean()
    parts = loss(embeddings, labels)
    assert parts["loss"].item() == pytest.approx(expected.item())
    (of_alpha,) = torch.autograd.grad(parts["loss"], loss.alpha)
    assert of_alpha.item() == pytest.approx(-(parts["loss"] / loss.alpha).item())
    assert parts["solved"] == (own == away.amin(dim=1)).double().mean()


def test_it_is_zero_only_when_all_are_right():
    loss, _, labels = problem(k=1)
    at_centres = loss.centres()[labels].detach()
    parts = loss(at_centres, labels)
    assert (parts["hard_softmin"], parts["accuracy"], parts["solved"]) == (0, 1, 1)


@pytest.mark.parametrize("k", [1, 2, "all"])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_large_logits_stay_finite(k, size):
    logits = (size * torch.rand(5, 4)).requires_grad_()
    loss = hard_softmin(logits, torch.tensor([0, 1, 2, 3, 0]), k)
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


def test_an_embedding_at_a_long_centre_has_a_finite_gradient():
    loss, _, labels = problem(centres="ratio")
    loss = loss.float()
    with torch.no_grad():
        loss.lengths.mul_(1e-3)
    at_centres = loss.centres()[labels].detach().requires_grad_()
    total = loss(at_centres, labels)["loss"]
    assert torch.isfinite(torch.autograd.grad(total, at_centres)[0]).all()


def test_decorrelation_of_orthogonal_and_of_equal_centres():
    assert decorrelation(torch.eye(4)) == 0
    assert decorrelation(F.normalize(torch.ones(3, 5))).item() == pytest.approx(1)
    assert decorrelation(torch.ones(1, 5)) == 0


def test_the_published_centres_start_at_unit_length_and_may_leave_it():
    loss, embeddings, labels = problem(centres="ratio")
    assert torch.allclose(loss.centres().norm(dim=1), torch.ones(6, dtype=torch.float64), atol=1e-6)
    assert {id(p) for p in loss.parameters()} == {id(p) for p in [*loss.centre_parameters(), loss.alpha]}
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.01)
    loss(embeddings, labels)["loss"].backward()
    optimizer.step()
    assert not torch.allclose(loss.centres().norm(dim=1), torch.ones(6, dtype=torch.float64), atol=1e-6)
    kept, embeddings, labels = problem(centres="unit")
    assert torch.allclose(kept.centres().norm(dim=1), torch.ones(6, dtype=torch.float64))
    assert kept.centre_parameters() == [kept.directions]


def test_alpha_need_not_be_learned():
    loss, *_ = problem(learn_alpha=False)
    assert [p.requires_grad for p in loss.parameters()] == [True, False]


def test_half_precision_embeddings_are_compared_in_single():
    loss, embeddings, labels = problem()
    loss = loss.float()
    half = embeddings.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(half, labels)["loss"]
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(half.float(), labels)["loss"])


def test_all_centres_is_the_librarys_proxy_nca():
    loss, embeddings, labels = problem(k="all", decorrelation_weight=0.0)
    library = losses.ProxyNCALoss(
        6, 8, softmax_scale=10 / loss.alpha.item(), distance=distances.LpDistance(power=1)
    ).double()
    with torch.no_grad():
        library.proxies.copy_(loss.centres())
    # The root's 1e-6 is ours alone.
    assert loss(embeddings, labels)["loss"].item() == pytest.approx(library(embeddings, labels).item(), rel=1e-5)


def test_one_centre_is_the_librarys_hardest_triplet():
    loss, embeddings, labels = problem(k=1, decorrelation_weight=0.0)
    distance = distances.LpDistance(power=1)
    centres, classes = loss.centres(), torch.arange(6)
    tuples = miners.BatchHardMiner(distance=distance)(embeddings, labels, centres, classes)
    triplets = losses.TripletMarginLoss(margin=0, distance=distance, reducer=reducers.MeanReducer())
    expected = 10 / loss.alpha * triplets(embeddings, labels, tuples, ref_emb=centres, ref_labels=classes)
    assert loss(embeddings, labels)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_decorrelation_regularises_the_librarys_proxy_losses():
    torch.manual_seed(0)
    plain = losses.ProxyAnchorLoss(6, 8)
    regularised = losses.ProxyAnchorLoss(6, 8, weight_regularizer=DecorrelationRegularizer(), weight_reg_weight=0.3)
    regularised.load_state_dict(plain.state_dict(), strict=False)
    embeddings, labels = torch.randn(12, 8), torch.arange(12) % 6
    difference = regularised(embeddings, labels) - plain(embeddings, labels)
    assert difference.item() == pytest.approx(0.3 * decorrelation(F.normalize(plain.proxies)).item(), rel=1e-4)


@pytest.mark.parametrize("options", [{"k": 0}, {"alpha": 0.0}, {"centres": "sphere"}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        HardGlobalSoftmin(3, 4, **options)
