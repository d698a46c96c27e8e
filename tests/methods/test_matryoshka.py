"""Matryoshka embeddings: the nested loss by its formula, networks cut off, and sizes that search each other."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.matryoshka import Matryoshka, cut_off
from subnetbench.methods.parts.losses.nested import NestedClassifiers

SHORT = {"epochs": 1, "batch_size": 32, "limit_steps": 4, "network": "cnn8-8", "image_size": 16, "dim": 16, "dims": [4]}


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tied", [False, True])
def test_the_loss_is_the_cross_entropy_of_each_leading_part(tied):
    torch.manual_seed(0)
    nested, embeddings, labels = NestedClassifiers([6, 2], 3, tied=tied), draw(5, 6), torch.arange(5) % 3
    found = nested(embeddings, labels)
    for size, classifier in zip((6, 2), [nested.classifiers[0], nested.classifiers[0 if tied else 1]], strict=True):
        logits = embeddings[:, :size] @ classifier.weight[:, :size].T + classifier.bias
        torch.testing.assert_close(found[size], cross_entropy(logits, labels))
    assert len(nested.classifiers) == (1 if tied else 2)


@pytest.mark.parametrize("loss", ["arcface", "cosface"])
def test_margins_are_taken_from_cosines_of_each_leading_part(loss):
    nested, embeddings, labels = (
        NestedClassifiers([4], 3, loss=loss, scale=9, margin=0.2),
        draw(5, 6),
        torch.arange(5) % 3,
    )
    cosines = normalize(embeddings[:, :4]) @ normalize(nested.classifiers[0].weight).T
    own = torch.nn.functional.one_hot(labels, 3).bool()
    lowered = torch.cos(torch.acos(cosines) + 0.2) if loss == "arcface" else cosines - 0.2
    by_hand = cross_entropy(9 * torch.where(own, lowered, cosines), labels)
    torch.testing.assert_close(nested(embeddings, labels)[4], by_hand)


@pytest.mark.parametrize(("training", "norms"), [("nested", "part"), ("full", "whole")])
def test_sizes_are_leading_parts_that_search_each_other(training, norms, run_of):
    with run_of("matryoshka", {**SHORT, "training": training, "norms": norms}) as (method, modules, context):
        assert [each.name for each in method.variants(modules, context)] == ["dim_16", "dim_4"]
        assert modules["classifiers"].sizes == ((16, 4) if training == "nested" else (16,))
        split = context.data.test
        whole, short = (each.build() for each in method.variants(modules, context))
        pixels = method.preprocessing(context)(split.images, np.arange(len(split)))
        with torch.no_grad():
            raw = modules["network"].whitening(modules["network"].descriptors(pixels))
            torch.testing.assert_close(short(pixels), normalize(raw[:, :4]))
            torch.testing.assert_close(whole(pixels), normalize(raw))
        scores = {
            (each.variant, each.gallery_variant): each.value
            for each in method.evaluate(modules, context)
            if each.metric == "recall_at_1" and ":" not in each.variant
        }

        def recall(size, gallery):
            similarity = normalize(raw[:, :size]) @ gallery[:, :size].T
            similarity.fill_diagonal_(-2)
            return pytest.approx(
                (split.labels[similarity.argmax(1).numpy()] == split.labels).mean(), abs=1.5 / len(split)
            )

        assert scores["dim_16", "dim_16"] == recall(16, normalize(raw))
        assert scores["dim_4", "dim_4"] == scores["dim_16", "dim_4"] == recall(4, normalize(raw[:, :4]))
        assert scores["dim_4", "dim_16"] == recall(4, normalize(raw if norms == "whole" else raw[:, :4]))
        assert (scores["dim_4", "dim_16"] == scores["dim_4", "dim_4"]) == (norms == "part")


def test_sizes_that_were_not_trained_can_be_had(run_of):
    with run_of("matryoshka", {**SHORT, "epochs": 0}) as (method, modules, context):
        variant = method.variant_on_demand("dim_7", modules, context)
        assert variant.build().dim == variant.details["embedding_size"] == 7
        assert variant.build().whitening.weight.shape[0] == 7
        assert method.variant_on_demand("dense", modules, context) is None
        for name in ("dim_17", "dim_1"):
            with pytest.raises(UserError, match="dim_2 to dim_16"):
                method.variant_on_demand(name, modules, context)
        before = modules["network"].whitening.weight.clone()
        cut_off(modules["network"], 3)
        assert torch.equal(modules["network"].whitening.weight, before)


def test_sizes_halve_down_to_eight_unless_told_otherwise():
    assert Matryoshka.Config().sizes() == [128, 64, 32, 16, 8]
    assert Matryoshka.Config(dim=24, dims=[5, 24]).sizes() == [24, 5]
    with pytest.raises(UserError, match="dims"):
        Matryoshka.Config.parse({"dim": 8, "dims": [16]})
