import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from subnetbench.harness.core.errors import DataError, RunFailure
from subnetbench.harness.evaluation.classification import classification_metrics


@settings(deadline=None)
@given(st.data())
def test_metrics_are_their_definitions_however_batches_are_cut(data):
    n, classes = data.draw(st.integers(1, 12)), data.draw(st.integers(2, 8))
    logits = data.draw(arrays(np.float32, (n, classes), elements=st.sampled_from([-2.0, -0.5, 0.0, 0.5, 3.0])))
    labels = data.draw(arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    best = [sorted(range(classes), key=lambda c, row=row: (-row[c], c)) for row in logits]
    softmax = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True)
    expected = {
        "top1": np.mean([label in order[:1] for label, order in zip(labels, best, strict=True)]),
        "loss": -np.log(softmax[np.arange(n), labels]).mean(),
    }
    if classes > 5:
        expected["top5"] = np.mean([label in order[:5] for label, order in zip(labels, best, strict=True)])
    cut = data.draw(st.integers(0, n))
    parts = [(torch.from_numpy(logits[p]), torch.from_numpy(labels[p])) for p in (slice(cut), slice(cut, n))]
    assert classification_metrics(iter(parts)) == pytest.approx(expected, abs=1e-6)


def test_half_precision_logits_and_large_losses():
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], dtype=torch.bfloat16)
    found = classification_metrics([(logits, torch.tensor([0, 0]))])
    assert found == {"top1": 0.5, "loss": pytest.approx(200)}


def test_unusable_batches_are_refused():
    logits = torch.zeros(2, 3)
    with pytest.raises(RunFailure) as caught:
        classification_metrics([(logits / 0, torch.tensor([0, 1]))])
    assert caught.value.reason == "nan"
    for labels in ([0, 3], [-1, 0]):
        with pytest.raises(DataError, match="do not fit 3 logits"):
            classification_metrics([(logits, torch.tensor(labels))])
    with pytest.raises(DataError, match="no samples"):
        classification_metrics([])
