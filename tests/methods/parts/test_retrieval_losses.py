import pytest
import torch
import torch.nn.functional as F

from published.losses import compatible_contrast
from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.losses.margin import (
    asymmetric_triplet_loss,
    evidential_loss,
    margin_logits,
    sample_weights,
)

FEATURES = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
OTHERS = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) // 2


def test_sample_weights_rise_with_the_distance_from_the_dense_network():
    dense = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    sub = torch.tensor([[2.0, 0.0], [3.0, 0.0], [1.0, 1.0]])
    losses = torch.tensor([1.0, 2.0, 3.0])
    divergence = F.kl_div(F.log_softmax(sub, 1), F.softmax(dense, 1), reduction="none").sum(1)
    centred = divergence - divergence.mean()
    assert torch.allclose(sample_weights(dense, sub, losses, "divergence"), 1 + centred)
    assert torch.allclose(sample_weights(dense, sub, losses, "curriculum"), 1 - centred)
    late = sample_weights(dense, sub, losses, "curriculum", late=True)
    assert torch.allclose(late, (1 + centred) * losses / 2)
    assert torch.equal(sample_weights(dense, sub, losses, "none"), torch.ones(3))
    assert centred[1] > 0 > centred[0]


def test_weights_carry_no_gradient():
    dense, sub = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    assert not sample_weights(dense, sub, torch.ones(4), "divergence").requires_grad


def test_a_margin_lowers_the_label_alone():
    weights = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    plain = margin_logits(FEATURES, weights, LABELS, "cosface", margin=0.0)
    for kind in ("arcface", "cosface"):
        lowered = margin_logits(FEATURES, weights, LABELS, kind, margin=0.3) - plain
        at_label = F.one_hot(LABELS, 4).bool()
        assert (lowered[at_label] < 0).all()
        assert torch.equal(lowered[~at_label], torch.zeros_like(lowered[~at_label]))


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_separated_classes_have_no_triplet_loss(distance):
    gallery = 10 * F.one_hot(LABELS, 6).float()
    loss = asymmetric_triplet_loss(gallery, gallery, LABELS, distance=distance, mining="hard")
    assert loss == 0
    assert asymmetric_triplet_loss(FEATURES, OTHERS, LABELS, distance=distance) > 0


def test_soft_mining_is_at_most_as_hard():
    hard = asymmetric_triplet_loss(FEATURES, OTHERS, LABELS, mining="hard")
    soft = asymmetric_triplet_loss(FEATURES, OTHERS, LABELS, mining="soft")
    assert soft < hard


def test_more_negatives_make_the_contrast_harder():
    new, old = F.normalize(FEATURES), F.normalize(OTHERS)
    values = [compatible_contrast(new, old, LABELS, negatives=n).item() for n in (1, 3, 6)]
    assert values == sorted(values)
    assert compatible_contrast(new, old, LABELS, against_new=True).item() > values[1]


def test_evidence_for_the_label_lowers_the_evidential_loss():
    logits = torch.zeros(4, 5)
    labels = torch.tensor([0, 1, 2, 3])
    right = logits + 5 * F.one_hot(labels, 5)
    wrong = logits + 5 * F.one_hot((labels + 1) % 5, 5)
    assert evidential_loss(right, labels) < evidential_loss(logits, labels) < evidential_loss(wrong, labels)
    assert evidential_loss(wrong, labels, regularisation=1.0) > evidential_loss(wrong, labels)


def test_unknown_kinds_are_refused():
    with pytest.raises(UserError, match="margin"):
        margin_logits(FEATURES, OTHERS, LABELS, "sphereface")
    with pytest.raises(UserError, match="sample_weighting"):
        sample_weights(FEATURES, OTHERS, torch.ones(8), "reverse")
