"""Resolution distillation against the published code: network, losses, mining, views, schedules, whole trainings."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from published.losses import asymmetric_contrastive
from published.triplet import in_batch_positives
from published.views import paper_views
from subnetbench.harness.data.images import TensorImages
from subnetbench.harness.data.preprocessing import Preprocessing
from subnetbench.harness.method.stages import Progress
from subnetbench.methods.parts.losses import neighbours
from subnetbench.methods.parts.losses.distillation import absolute_loss, raml, raml_batch, relational_loss
from subnetbench.methods.parts.losses.triplet import distance_weights, mine_negatives, plan_triplet_epoch, triplet_loss
from subnetbench.methods.parts.networks.embedding import EmbeddingNetwork
from subnetbench.methods.parts.networks.feature_maps import IMAGENET_MEAN, IMAGENET_STD
from subnetbench.methods.parts.networks.pooling import GeneralisedMeanPool, l2_normalise, make_pool
from subnetbench.methods.parts.networks.whitening import pca_whitening, supervised_whitening
from subnetbench.methods.parts.optim.schedules import raml_schedule

FOLDER = "resolution_distillation"
POOL_LR_MULTIPLIERS = {"gem": 10, "gemmp": 100}


def numbered(case: Any) -> Iterator[dict[str, Any]]:
    """The entries of `case00`, `case01`, ..., each as a dictionary of its own."""
    for number in sorted({name.split(".")[0] for name in case}):
        yield case.under(number + ".")


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))


def assert_close(mine: Any, given: Any, *, gradient: bool = False, rtol: float | None = None) -> None:
    """To the tolerances of the recorded precision, float32 or float64."""
    mine = mine.detach().numpy() if isinstance(mine, Tensor) else np.asarray(mine)
    given = np.asarray(given)
    single = given.dtype == np.float32
    rtol = rtol or (1e-5 if single else 1e-9)
    atol = (1e-5 if gradient else 1e-6) if single else 1e-11
    np.testing.assert_allclose(mine.reshape(given.shape), given, rtol=rtol, atol=atol)


def lambdas_of(given: dict[str, Any]) -> dict[str, float]:
    return {"lam_ts": float(given["lam_1"]), "lam_ss": float(given["lam_2"])}


def total(parts: Tensor | dict[str, Tensor]) -> Tensor:
    return torch.stack(list(parts.values())).sum() if isinstance(parts, dict) else parts


@pytest.mark.golden(FOLDER, "distill_losses")
def test_distillation_losses(case):
    for given in numbered(case):
        teacher, student = tensor(given["teacher"]), tensor(given["student"]).requires_grad_()
        target = teacher @ teacher.mT
        values = {
            "abs": absolute_loss(student, teacher, "sum"),
            "rel_ts": relational_loss(student @ teacher.mT, target, "sum"),
            "rel_ss": relational_loss(student @ student.mT, target, "sum"),
            "total": total(raml(student, teacher, **lambdas_of(given), reduction="sum")),
        }
        for name, value in values.items():
            assert_close(value, given[f"value_{name}"])
            (gradient,) = torch.autograd.grad(value, student)
            assert_close(gradient, given[f"grad_{name}"], gradient=True)


@pytest.mark.golden(FOLDER, "triplet_loss")
def test_triplet_loss(case):
    for given in numbered(case):
        vectors = {name: tensor(given[name]).requires_grad_() for name in ("anchor", "positives", "negatives")}
        margin = float(given["margin"])
        value = triplet_loss(vectors["anchor"].squeeze(1), vectors["positives"], vectors["negatives"], margin, "sum")
        value.backward()
        assert_close(value, given["value"])
        for name, leaf in vectors.items():
            assert_close(leaf.grad, given[f"grad_{name}"], gradient=True)


@pytest.mark.golden(FOLDER, "pooling")
def test_pooling(case):
    for given in numbered(case):
        for name in ("mac", "spoc", "gem", "gemmp"):
            maps = tensor(given["x"]).requires_grad_()
            pool = make_pool(name, maps.shape[1]).to(maps.dtype)
            if isinstance(pool, GeneralisedMeanPool):
                pool.p.data.copy_(tensor(given["p" if name == "gem" else "p_vector"]))
            pooled = pool(maps)
            (pooled * tensor(given["cotangent"]).flatten(1)).sum().backward()
            assert_close(pooled, given[f"{name}_out"])
            assert_close(maps.grad, given[f"{name}_grad_x"], gradient=True)
            if isinstance(pool, GeneralisedMeanPool):
                assert_close(pool.p.grad, given[f"{name}_grad_p"], gradient=True)


@pytest.mark.golden(FOLDER, "embedding_head")
def test_embedding_head(case):
    for given in numbered(case):
        maps = tensor(given["feature_map"])
        pool = make_pool(("gem", "gemmp", "spoc", "mac")[int(given["pool_code"])], maps.shape[1])
        dim = len(given["whiten_weight"]) if "whiten_weight" in given else None
        head = EmbeddingNetwork(nn.Identity(), pool, maps.shape[1], dim).double()
        if isinstance(pool, GeneralisedMeanPool):
            pool.p.data.copy_(tensor(given["pool_p"]))
        if dim is not None:
            head.whitening.weight.data.copy_(tensor(given["whiten_weight"]))
            head.whitening.bias.data.copy_(tensor(given["whiten_bias"]))
        embedding = head(maps)
        assert_close(embedding, given["embedding"])
        gradients = {
            "grad_whiten_weight": "whitening.weight",
            "grad_whiten_bias": "whitening.bias",
            "grad_pool_p": "pool.p",
        }
        wanted = {name: path for name, path in gradients.items() if name in given}
        if wanted:
            (embedding * tensor(given["cotangent"])).sum().backward()
        for name, path in wanted.items():
            assert_close(head.get_parameter(path).grad, given[name], gradient=True)


@pytest.mark.golden(FOLDER, "offline_whitening")
def test_closed_form_whitening(case):
    for given in numbered(case):
        rows = tensor(given["x"])
        pairs = tensor(given["query_idx"]), tensor(given["positive_idx"])
        computed = {
            "pca": pca_whitening(rows),
            "lw": supervised_whitening(rows, *pairs),
            "shrunk": pca_whitening(rows, shrinkage="smallest"),
        }
        for name, (mean, projection) in computed.items():
            assert_close(mean, given[f"{name}_mean"], rtol=1e-7)
            assert_close(projection.abs(), np.abs(given[f"{name}_P"]), rtol=1e-7)
            for suffix, size in (("gram", len(projection)), ("gram_k", int(given["k"]))):
                if f"{name}_{suffix}" in given:
                    whitened = l2_normalise((rows - mean) @ projection[:size].T)
                    assert_close(whitened @ whitened.T, given[f"{name}_{suffix}"], rtol=1e-7)


@pytest.mark.golden(FOLDER, "mining")
def test_mining(case):
    for given in numbered(case):
        vectors = tensor(given["query"]), tensor(given["pool"])
        labels = tensor(given["query_labels"]), tensor(given["pool_labels"])
        weights = distance_weights(*vectors, *labels, paper=True)
        np.testing.assert_allclose(weights, given["probabilities"], rtol=1e-4)

        generator = np.random.RandomState(int(given["numpy_seed"]))
        count = int(given["neg_num"])
        mined = mine_negatives(*vectors, given["query_labels"], given["pool_labels"], count, generator, paper=True)
        np.testing.assert_array_equal(mined, given["negatives"])

        positives = in_batch_positives(tensor(given["batch_labels"]))
        np.testing.assert_array_equal(positives.sort(dim=1).values, given["batch_positives_sorted"])


@pytest.mark.golden(FOLDER, "epoch_tuples")
def test_epoch_tuples(case):
    for given in numbered(case):
        descriptors, labels = tensor(given["descriptors"]), given["kept_labels"]
        sizes = {
            "samples_per_class": int(given["samples_per_class"]),
            "query_limit": int(given["query_size"]),
            "pool_limit": int(given["pool_size"]),
            "negatives": int(given["neg_num"]),
        }

        def plan(paper: bool, labels=labels, descriptors=descriptors, sizes=sizes, seed=int(given["numpy_seed"])):
            generator = np.random.RandomState(seed)
            return plan_triplet_epoch(labels, lambda i: descriptors[i], generator, **sizes, paper=paper)

        published, repaired = plan(paper=True), plan(paper=False)
        for epoch in (published, repaired):
            np.testing.assert_array_equal(epoch.queries, given["query_idx"])
            assert epoch.negatives.shape == given["negative_idx"].shape
        if not given["single_pass_branch"]:
            np.testing.assert_array_equal(published.negatives, given["negative_idx"])
        false = labels[published.negatives] == labels[published.queries][:, None]
        assert false.mean() == pytest.approx(float(given["false_negative_fraction"]))
        assert not (labels[repaired.negatives] == labels[repaired.queries][:, None]).any()


def optimizer_of(name: str, groups: list[dict[str, Any]], momentum: float = 0.9) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=momentum)
    return {"adam": torch.optim.Adam, "adamW": torch.optim.AdamW}[name](groups)


def momentum_of(optimizer: torch.optim.Optimizer) -> float:
    group = optimizer.param_groups[0]
    return group["betas"][0] if "betas" in group else group["momentum"]


@pytest.mark.golden(FOLDER, "schedules")
def test_schedules(case):
    for given in numbered(case):
        lr, epochs = float(given["lr"]), int(given["epochs"])
        schedule = raml_schedule(
            str(given["scheduler"]),
            images_per_epoch=int(given["dataset_len"]),
            batch_size=int(given["batch_size"]),
            accumulate=int(given["update_every"]),
            epochs=epochs,
            lr=lr,
        )
        network = EmbeddingNetwork(nn.Linear(1, 1), make_pool("gem", 1), 1, 1)
        multiplier = POOL_LR_MULTIPLIERS["gem"]
        groups = network.parameter_groups(lr, float(given["weight_decay"][0]), multiplier)
        optimizer = optimizer_of(str(given["optimizer"]), groups)
        np.testing.assert_array_equal([group["weight_decay"] for group in groups], given["weight_decay"])
        steps = int(given["steps_per_epoch"])
        expected = [*given["step_values"].reshape(-1, 4), given["final_values"]]
        for step, values in enumerate(expected):
            schedule.apply(optimizer, Progress(step, epochs * steps, step // steps, epochs, steps))
            rates = [group["lr"] for group in optimizer.param_groups]
            assert_close([*rates, momentum_of(optimizer)], values)


def tiny_network(pool: str, weights: dict[str, np.ndarray]) -> EmbeddingNetwork:
    first = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
    second = nn.Conv2d(8, 8, 3, stride=2, padding=1)
    backbone = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.ReLU())
    network = EmbeddingNetwork(backbone, make_pool(pool, 8), 8, 6, freeze_batch_statistics=True)
    state = {name.replace("whiten.", "whitening."): tensor(value) for name, value in weights.items()}
    network.to(next(iter(state.values())).dtype)
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return network


def published_batch_loss(given: dict[str, Any], network: EmbeddingNetwork, batch: int) -> Tensor:
    """The sum over the images of one recorded batch, in the run's mode."""
    dtype = network.whitening.weight.dtype
    mode = str(given["mode"])
    if mode == "sym":
        labels, negatives = tensor(given["labels"]), tensor(given["negative_images"][batch]).to(dtype)
        anchors = network(tensor(given["images"][batch]).to(dtype))
        positives = anchors[in_batch_positives(labels)]
        others = network(negatives.flatten(0, 1)).unflatten(0, negatives.shape[:2])
        return triplet_loss(anchors, positives, others, float(given["margin"]), "sum")
    images = tensor(given["student_images"][batch]).to(dtype)
    if mode == "ts_reg":
        targets = tensor(given["teacher_features"][batch])
        return total(raml(network(images), targets, lam_ts=0, lam_ss=0, reduction="sum"))
    teacher = tiny_network(str(given["pool"]), {k[8:]: v for k, v in given.items() if k.startswith("teacher.")})
    large = tensor(given["teacher_images"][batch]).to(dtype)
    with torch.no_grad():
        targets = teacher.eval()(large.flatten(0, 1)).unflatten(0, large.shape[:2])
    views = network(images.flatten(0, 1)).unflatten(0, images.shape[:2])
    return total(raml(views, targets, **lambdas_of(given), reduction="sum"))


@pytest.mark.golden(FOLDER, "micro_training")
def test_whole_optimisation(case):
    for given in numbered(case):
        tolerance = 1e-8 if given["dtype"] == "float64" else 1e-4
        pool, lr, epochs = str(given["pool"]), float(given["lr"]), int(given["epochs"])
        accumulate, batch_size = int(given["update_every"]), int(given["batch_size"])
        network = tiny_network(pool, {k[5:]: v for k, v in given.items() if k.startswith("init.")}).train()
        groups = network.parameter_groups(lr, float(given["weight_decay"]), POOL_LR_MULTIPLIERS[pool])
        optimizer = optimizer_of(str(given["optimizer"]), groups, float(given["momentum"]))
        schedule = raml_schedule(
            str(given["scheduler"]),
            images_per_epoch=int(given["dataset_len"]),
            batch_size=batch_size,
            accumulate=accumulate,
            epochs=epochs,
            lr=lr,
        )
        batches = given["batch_losses"].shape[1]
        steps = batches // accumulate
        losses = np.zeros((epochs, batches))
        for epoch in range(epochs):
            optimizer.zero_grad()  # what a broken-off accumulation left behind is lost
            for batch in range(batches):
                loss = published_batch_loss(given, network, batch)
                loss.backward()
                losses[epoch, batch] = loss.detach()
                if (batch + 1) % accumulate == 0:
                    done = epoch * steps + batch // accumulate
                    schedule.apply(optimizer, Progress(done, epochs * steps, epoch, epochs, steps))
                    optimizer.step()
                    optimizer.zero_grad()
        np.testing.assert_allclose(losses, given["batch_losses"], rtol=tolerance)
        np.testing.assert_allclose((losses / batch_size).mean(axis=1), given["epoch_loss"], rtol=tolerance)
        final = network.state_dict()
        for name, value in given.items():
            if name.startswith("final."):
                mine = final[name[6:].replace("whiten.", "whitening.")]
                np.testing.assert_allclose(mine, value, rtol=tolerance, atol=tolerance * np.abs(value).max())


@pytest.mark.golden(FOLDER, "eval_transform")
def test_evaluation_view(case):
    for given in numbered(case):
        image = tensor(given["image"]).permute(2, 0, 1).unsqueeze(0)
        preprocessing = Preprocessing(
            size=int(given["imsize"]),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            resize_ratio=8 / 7,
            interpolation="lanczos",
        )
        height, width = preprocessing.resized_shape(*image.shape[-2:])
        assert [width, height] == given["resized_wh"].tolist()
        view = preprocessing(TensorImages(image), np.array([0]))[0]
        np.testing.assert_allclose(view, given["output"], atol=0.02)


@pytest.mark.golden(FOLDER, "coupled_views")
def test_coupled_views(case):
    for given in numbered(case):
        roles = {
            role: Preprocessing(int(given[f"{role}_size"]), IMAGENET_MEAN, IMAGENET_STD)
            for role in ("student", "teacher")
        }
        generator = np.random.RandomState(int(given["numpy_seed"]))
        views = paper_views(list(given["images"]), int(given["anchor_index"]), int(given["pos_num"]), roles, generator)
        assert [view.seed for view in views] == given["view_seeds"].tolist()
        assert [view.partner for view in views] == given["partner_index"].tolist()
        assert_close([view.mix for view in views], given["mix_lambda"])
        boxes = np.concatenate([view.parameters.boxes for view in views])
        np.testing.assert_array_equal(boxes, given["crop_boxes_top_left_h_w"])
        for role in roles:
            rendered = torch.stack([view.pixels[role] for view in views])
            np.testing.assert_allclose(rendered, given[f"{role}_views"], atol=1e-6)


def neighbour_losses_of(given: dict[str, Any]) -> dict[str, Callable[[Tensor], Any]]:
    """Each loss with the recorded teacher and options, as a function of the student."""
    teacher, teacher_logits = tensor(given["teacher"]), tensor(given["teacher_logits"])
    own, positive = tensor(given["aml_anchor_teacher"]), tensor(given["aml_positive_teacher"])
    negatives, margin, anchors = tensor(given["aml_negative_teacher"]), float(given["aml_margin"]), len(own)
    top_k = int(given["topk"])
    student_temperature, teacher_temperature = given["csd_temperatures_student_teacher"].tolist()
    rop_temperature, rank_weight = given["rop_temperature_rankweight"].tolist()
    csd = {"student_temperature": student_temperature, "teacher_temperature": teacher_temperature}
    rop = {"temperature": rop_temperature, "rank_weight": rank_weight}
    unit_weights = {"feature_weight": 1, "inconsistent_weight": 1, "consistent_weight": 1}

    def d3_part(name: str) -> Callable[[Tensor], Tensor]:
        return lambda s: neighbours.d3still(s, teacher, top_k=top_k, **unit_weights)[name]

    def rkd(distance: float, angle: float) -> Callable[[Tensor], Any]:
        return lambda s: neighbours.relational_knowledge(s, teacher, distance_weight=distance, angle_weight=angle)

    def contrastive(positives: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda s: anchors * asymmetric_contrastive(s, positives, negatives, margin=margin)

    return {
        "fitnet_mse": lambda s: neighbours.fitnet(s, teacher),
        "cc": lambda s: neighbours.correlation_congruence(s, teacher),
        "raml_batch": lambda s: raml_batch(s, teacher, lam_ts=0.7482, lam_ss=0.7482),
        "kd": lambda s: neighbours.soft_labels(s, teacher_logits, temperature=float(given["kd_temperature"])),
        "pkt": lambda s: neighbours.probabilistic_transfer(s, teacher),
        "rkd_distance": rkd(1, 0),
        "rkd_angle": rkd(0, 1),
        "csd": lambda s: neighbours.contextual_similarity(s, teacher, top_k=top_k, **csd),
        "rop": lambda s: neighbours.rank_order_preservation(s, teacher, top_k=top_k, **rop),
        "d3": lambda s: neighbours.d3still(s, teacher, top_k=top_k),
        "d3_feature": d3_part("feature"),
        "d3_inconsistent": d3_part("inconsistent"),
        "d3_consistent": d3_part("consistent"),
        "aml_regression": lambda s: anchors * neighbours.asymmetric_regression(s, own),
        "aml_contrastive": contrastive(positive.unsqueeze(1)),
        "aml_contrastive_plus": contrastive(torch.stack([positive, own], dim=1)),
        "darkrank": lambda s: neighbours.dark_rank(s, teacher),
    }


@pytest.mark.golden(FOLDER, "neighbour_losses")
def test_neighbour_losses(case):
    for given in numbered(case):
        for name, loss in neighbour_losses_of(given).items():
            leaf_name = "aml_anchor_student" if name.startswith("aml") else "student"
            leaf = tensor(given["student_logits" if name == "kd" else leaf_name]).requires_grad_()
            value = total(loss(leaf))
            value.backward()
            np.testing.assert_allclose(value.detach(), given[f"{name}_value"], rtol=1e-4, err_msg=name)
            gradient = given[f"{name}_grad"]
            atol = 1e-5 * np.abs(gradient).max()
            np.testing.assert_allclose(leaf.grad, gradient, rtol=1e-4, atol=atol, err_msg=name)
