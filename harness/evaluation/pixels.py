"""Baselines that train no network: nearest neighbours, linear models and whitening of pixels or frozen features, colours.

What they take is bounded (`Sight.most`), so that they cost seconds on any data set. Which images is drawn by a fixed stream,
the same on every machine.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from subnetbench.harness.core.metrics import parse_metric
from subnetbench.harness.core.rng import numpy_generator
from subnetbench.harness.data.images import Images
from subnetbench.harness.data.preprocessing import Preprocessing
from subnetbench.harness.data.splits import Split, TaskData
from subnetbench.harness.evaluation.classification import classification_metrics
from subnetbench.harness.evaluation.relevance import Relevance
from subnetbench.harness.evaluation.retrieval import retrieval_metrics, split_metrics
from subnetbench.harness.evaluation.search import search
from subnetbench.harness.evaluation.text_image import text_image_metrics

Values = dict[str, float]
Embedding = Callable[[Images, np.ndarray], Tensor]

SIDE = 16
NEIGHBOURS = (3, 5, 10, 20)
WORDS = 2_000
_BATCH = 1024


@dataclass(frozen=True)
class Most:
    """How many images a baseline takes: to learn from, to be chosen on, to be scored or searched, and as queries."""

    training: int = 10_000
    validation: int = 2_000
    items: int = 20_000
    queries: int = 2_000


@dataclass(frozen=True)
class Sight:
    """As what a baseline sees images: numbers in a row (n, d) float32, which are compared by cosine.

    `penalties` are offered to ridge regression, as shares of the mean eigenvalue of the rows' covariance; `words_penalty` is
    the one to words. `whitened` is how many principal components are kept.
    """

    name: str
    rows: Embedding
    penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    words_penalty: float = 0.1
    whitened: int = 64
    most: Most = Most()

    def of(self, split: Split) -> Tensor:
        return self.rows(split.images, np.arange(len(split)))


def pixel_rows(images: Images, indices: np.ndarray | None = None, side: int = SIDE) -> Tensor:
    """Pixels (n, channels * side * side) float32 in [0, 1], each image's mean over all of them subtracted."""
    chosen = np.arange(len(images)) if indices is None else indices
    preprocessing = Preprocessing(size=side, mean=(0.0,) * images.channels, std=(1.0,) * images.channels)
    parts = [preprocessing(images, chosen[i : i + _BATCH]).flatten(1) for i in range(0, len(chosen), _BATCH)]
    rows = torch.cat(parts) if parts else torch.zeros(0, images.channels * side**2)
    return rows - rows.mean(dim=1, keepdim=True)


PIXELS = Sight("pixels", pixel_rows)


def sample(count: int, most: int, purpose: str) -> np.ndarray:
    """At most `most` of 0..count-1, ascending, drawn by a fixed stream."""
    if count <= most:
        return np.arange(count)
    return np.sort(numpy_generator(0, "evaluation", "trivial baselines", purpose).choice(count, most, replace=False))


def classified_by(data: TaskData, sight: Sight = PIXELS) -> dict[str, Values]:
    """`top1` and `top5` on the test split, by name of the baseline.

    `nearest_pixels` answers with the class of the nearest training image by cosine. `knn_pixels` takes the votes of k of
    them, of two classes with as many votes that of the nearer ones; k is chosen on validation. `linear_pixels` is ridge
    regression to the classes, whose penalty is chosen on validation. Without validation images k and penalty are the first
    of those offered.
    """
    most = sight.most
    train, validation, test = (
        part.subset(sample(len(part), limit, name))
        for part, limit, name in (
            (data.train, most.training, "training"),
            (data.validation, most.validation, "validation"),
            (data.test, most.items, "test"),
        )
    )
    if not len(train):
        return {}
    rows, tuned, asked = (sight.of(part) for part in (train, validation, test))
    classes = max(data.num_classes, test.num_classes)
    targets = torch.nn.functional.one_hot(torch.from_numpy(train.labels), classes).float()

    def voted(queries: Tensor, k: int) -> Tensor:
        found = search(queries, rows, min(k, len(rows)))
        nearer = 1 + 1e-4 * torch.arange(found.shape[1], 0, -1)
        return (targets[found] * nearer[:, None]).sum(1)

    def best(candidates: Sequence[Tensor]) -> int:
        """The first of those that are right most often on validation."""
        return int(np.argmax([_scores(logits, validation)["top1"] for logits in candidates])) if candidates else 0

    models = ridge(rows, targets, sight.penalties)
    k = NEIGHBOURS[best([voted(tuned, k) for k in NEIGHBOURS] if len(validation) else [])]
    model = models[best([model(tuned) for model in models] if len(validation) else [])]
    answers = {"nearest": voted(asked, 1), "knn": voted(asked, k), "linear": model(asked)}
    return {f"{name}_{sight.name}": _scores(logits, test) for name, logits in answers.items()}


def _scores(logits: Tensor, split: Split) -> Values:
    found = classification_metrics([(logits, torch.from_numpy(split.labels))])
    return {name: value for name, value in found.items() if name != "loss"}  # votes are no probabilities


class Linear:
    """An affine map (n, d) -> (n, outputs)."""

    def __init__(self, weight: Tensor, inputs: Tensor, outputs: Tensor) -> None:
        self.weight, self.inputs, self.outputs = weight, inputs, outputs

    def __call__(self, rows: Tensor) -> Tensor:
        return ((rows.double() - self.inputs) @ self.weight + self.outputs).float()


def ridge(rows: Tensor, targets: Tensor, penalties: Sequence[float]) -> list[Linear]:
    """Ridge regression of `targets` (n, outputs) on `rows` (n, d), with one decomposition for all `penalties`.

    Of the smaller of the two square matrices: d x d, or (the dual form) n x n.
    """
    inputs, outputs = rows.double().mean(0), targets.double().mean(0)
    centred, wanted = rows.double() - inputs, targets.double() - outputs
    dual = len(rows) < rows.shape[1]
    values, vectors = torch.linalg.eigh(centred @ centred.T if dual else centred.T @ centred)
    values = values.clamp(min=0)
    projected = vectors.T @ (wanted if dual else centred.T @ wanted)
    floor = (values.sum() / rows.shape[1]).clamp(min=1e-12)
    basis = centred.T @ vectors if dual else vectors
    return [Linear(basis @ (projected / (values + p * floor)[:, None]), inputs, outputs) for p in penalties]


def found_by(data: TaskData, metrics: Sequence[str] | None = None, sight: Sight = PIXELS) -> dict[str, Values]:
    """Retrieval metrics on the test split, by name of the baseline; all by cosine.

    `raw_pixels` compares the pixels. `whitened_pixels` compares them on the first principal components of the training
    images, each scaled to variance 1.
    """
    test, train = data.test, data.train
    by_name = {f"raw_{sight.name}": _search(test, sight.rows, metrics, sight.most)}
    if len(train) > 1:
        learned = sight.rows(train.images, sample(len(train), sight.most.training, "training")).double()
        mean = learned.mean(0)
        _, scales, directions = torch.linalg.svd(learned - mean, full_matrices=False)
        kept = int((scales[: sight.whitened] > 1e-6 * scales[0].clamp(min=1e-12)).sum())
        if kept:
            whitening = directions[:kept].T / scales[:kept]
            by_name[f"whitened_{sight.name}"] = _search(
                test,
                lambda images, chosen: ((sight.rows(images, chosen).double() - mean) @ whitening).float(),
                metrics,
                sight.most,
            )
    return by_name


def found_by_colours(data: TaskData, metrics: Sequence[str] | None = None) -> dict[str, Values]:
    """Retrieval metrics on the test split of `colours`, which compares square roots of histograms of 4 x 4 x 4 colours (of
    grey images: 16 levels)."""
    return {"colours": _search(data.test, _colours, metrics, Most())}


def _colours(images: Images, chosen: np.ndarray) -> Tensor:
    preprocessing = Preprocessing(size=2 * SIDE, mean=(0.0,) * images.channels, std=(1.0,) * images.channels)
    levels = 4 if images.channels == 3 else 16
    parts = []
    for start in range(0, len(chosen), _BATCH):
        seen = preprocessing(images, chosen[start : start + _BATCH])
        bins = (seen * levels).long().clamp(0, levels - 1).flatten(2)
        weights = levels ** torch.arange(bins.shape[1]) if images.channels == 3 else torch.ones(1).long()
        code = (bins[:, : len(weights)] * weights[:, None]).sum(1)
        counts = torch.zeros(len(code), levels ** len(weights)).scatter_add_(1, code, torch.ones(code.shape))
        parts.append(counts.sqrt())
    return torch.cat(parts)


def _search(test: Split, embed: Embedding, metrics: Sequence[str] | None, most: Most) -> Values:
    gallery = test if test.gallery is None else test.gallery
    everything = np.arange(len(gallery))
    if len(gallery) <= most.items:
        rows = embed(gallery.images, everything)
        query = rows if gallery is test else embed(test.images, np.arange(len(test)))
        return split_metrics(query, rows, test, metrics)
    asked = sample(len(test), most.queries, "queries")
    values: Values = {}
    for prefix, relevance in Relevance.settings(test).items():
        part, items = _part_of(relevance, asked, sample(len(gallery), most.items, "gallery"))
        names = metrics or [name for name in test.metrics if (parse_metric(name)[1] or 0) < len(items)]
        scores = retrieval_metrics(embed(test.images, asked), embed(gallery.images, items), part, names or None)
        values |= {prefix + name: value for name, value in scores.items()}
    return values


def _part_of(relevance: Relevance, asked: np.ndarray, fill: np.ndarray) -> tuple[Relevance, np.ndarray]:
    """The relevance for the queries `asked` in a gallery of what is right or ignored for them and of `fill`, and that
    gallery's items."""
    positives = [row[row >= 0] for row in relevance.positives(asked)]
    ignored = [np.empty(0, np.int64) if relevance.ignored is None else relevance.ignored[query] for query in asked]
    if relevance.own is not None:
        ignored = [
            np.append(items, own[own >= 0]) for items, own in zip(ignored, relevance.own[asked, None], strict=True)
        ]
    items = np.unique(np.concatenate([*positives, *ignored, fill]))
    at = np.full(relevance.gallery_size, -1)
    at[items] = np.arange(len(items))
    return Relevance.from_lists([at[p] for p in positives], [at[i] for i in ignored], len(items)), items


def described_by(data: TaskData, ks: Sequence[int], sight: Sight = PIXELS) -> dict[str, Values]:
    """Recall of text search, by name of the baseline: images become bags of words, and are compared with texts by them.

    A bag of words is weighted by inverse document frequency over the training captions, whose most frequent words it
    knows. `neighbours_words` gives an image the mean of the captions of the 5 nearest training images by pixels,
    `linear_words` what ridge regression makes of its pixels; those of another sight end in its name.
    """
    train = data.train.subset(sample(len(data.train), sight.most.training, "training"))
    if not len(train) or train.captions is None or data.test.captions is None:
        return {}
    rows, asked = sight.of(train), sight.of(data.test)
    words = BagOfWords(train.captions)
    targets = torch.stack([words(own).mean(0) if own else words.nothing() for own in train.captions])
    near = targets[search(asked, rows, min(5, len(rows)))].mean(1)
    linear = ridge(rows, targets, [sight.words_penalty])[0](asked)
    ending = "" if sight is PIXELS else f"_{sight.name}"
    return {
        f"{name}{ending}": text_image_metrics(
            images, data.test.captions, words, protocol=data.test.caption_protocol, ks=ks
        )
        for name, images in (("neighbours_words", near), ("linear_words", linear))
    }


class BagOfWords:
    """Texts to rows (n, words + 1), by the words of some captions; the last column keeps a row from being all zeros."""

    def __init__(self, captions: Sequence[Sequence[str]]) -> None:
        counts = Counter(word for own in captions for word in {w for text in own for w in self._words(text)})
        known = sorted(counts, key=lambda word: (-counts[word], word))[:WORDS]
        self._index = {word: at for at, word in enumerate(known)}
        self._weight = torch.tensor([np.log(1 + len(captions) / counts[word]) for word in known])

    def __call__(self, texts: Sequence[str]) -> Tensor:
        rows = torch.stack([self.nothing() for _ in texts])
        for row, text in zip(rows, texts, strict=True):
            for word in self._words(text):
                if word in self._index:
                    row[self._index[word]] = self._weight[self._index[word]]
        return torch.nn.functional.normalize(rows)

    def nothing(self) -> Tensor:
        row = torch.zeros(len(self._index) + 1)
        row[-1] = 1e-3
        return row

    @staticmethod
    def _words(text: str) -> set[str]:
        return set(re.findall(r"\w+", text.lower()))
