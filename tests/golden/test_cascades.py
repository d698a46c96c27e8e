"""Parity with the published search cascades: ranking, costs, captions, CLIP towers, and the ways of cheap encoders."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from published.captions import published_pairs
from published.cascade_timing import timing_report
from published.cascades import bi_encoder_level, cached_fractions
from published.cascades import cached as cached_images
from published.clip_student import distil_head, published_weights_file
from published.macs import encoder_macs
from published.rankings import metrics_of_order
from subnetbench.datasets.parts.captions import parse_coco, parse_flickr
from subnetbench.harness.data.images import TensorImages
from subnetbench.harness.evaluation.relevance import Relevance
from subnetbench.methods.parts.text_image.cascade import Cascade, Level
from subnetbench.methods.parts.text_image.clip_student import (
    ClipStudent,
    clip_student,
    cosine_distillation_loss,
    projection_head,
)
from subnetbench.methods.parts.text_image.encoders import (
    PROMPT,
    PUBLISHED_PROMPT,
    ClipPreprocessing,
    ImageEncoder,
    TextEncoder,
    fill_prompt,
    pad,
)
from subnetbench.methods.parts.vit.fisher import UnitCosts, rearrange_masks, search_masks
from subnetbench.methods.parts.vit.macs import macs_per_head, macs_per_neuron
from subnetbench.methods.parts.vit.mask_tuning import TuningStep, tune_masks
from subnetbench.methods.parts.vit.pruning import (
    CalibrationGradients,
    MaskedViT,
    Masks,
    calibration_gradients,
    compact,
    fisher_information,
    full_masks,
    keep_best_head,
    symmetric_clip_loss,
)
from subnetbench.methods.parts.vit.token_masking import TokenMaskedViT, kept_count

KINDS = (
    "clip_forward",
    "masking_forward",
    "fisher_tiny_clip",
    "tiny_clip_config",
    "tiny_clip_weights",
    "end_to_end_topk",
    "end_to_end_level0_config",
)


def cases_of(case: Any) -> list[dict[str, Any]]:
    """The numbered cases in a file: entries `case0_x`, `case1_x`, ... without their prefix."""
    numbers = sorted({int(match[1]) for name in case if (match := re.match(r"case(\d+)_", name))})
    return [case.under(f"case{number}_") for number in numbers]


def tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.asarray(array))


def distance(found: Any, wanted: Any) -> float:
    return float(np.abs(np.asarray(found, dtype=np.float64) - np.asarray(wanted, dtype=np.float64)).max())


def clip_model(config: dict[str, Any], weights: dict[str, np.ndarray]) -> Any:
    from transformers import CLIPConfig, CLIPModel

    model = CLIPModel(CLIPConfig(**config)).eval()
    model.load_state_dict({name: tensor(value) for name, value in weights.items()})
    return model


def companion(case: Any, kind: str, extension: str) -> Any:
    """The file of `kind` that belongs to a case: with the same suffix where there is one, else without."""
    suffix = next(case.path.stem.removeprefix(own) for own in KINDS if case.path.stem.startswith(own))
    name = f"{kind}{suffix}.{extension}"
    return case.companion(name if case.path.with_name(name).exists() else f"{kind}.{extension}")


def tiny_clip(case: Any) -> Any:
    """The CLIP model that a case belongs to."""
    weights = companion(case, "tiny_clip_weights", "npz")
    return clip_model(dict(companion(case, "tiny_clip_config", "json")), dict(weights))


def tiny_vit(case: Any) -> Any:
    from subnetbench.methods.parts.vit.conversion import plain_vit

    return plain_vit(tiny_clip(case))


# ranking, caching, accuracy


def stored_levels(case: Any) -> list[Level]:
    """Levels that look embeddings up; levels of equal identity return those of the first of them."""
    levels = len(case["image_emb"])
    image_ids = list(case.get("image_encoder_id", range(levels)))
    text_ids = list(case.get("text_encoder_id", range(levels)))

    def level(image: int, text: int) -> Level:
        return Level(
            f"image {image}",
            f"text {text}",
            lambda indices: tensor(case["image_emb"][image][indices]),
            lambda queries: tensor(case["text_emb"][text][list(queries)]),
        )

    return [level(image_ids.index(image_ids[i]), text_ids.index(text_ids[i])) for i in range(levels)]


def recalls(ranking: np.ndarray, labels: np.ndarray, ks: np.ndarray, images: int) -> list[float]:
    names = [f"recall_at_{k}" for k in ks]
    scores = metrics_of_order(ranking, Relevance.from_labels(labels, np.arange(images)), names)
    return [scores[name] for name in names]


@pytest.mark.golden("cascades", "cascade")
def test_ranking_and_caching_query_by_query_and_in_batches(case):
    queries, images = len(case["ranking"]), case["image_emb"].shape[1]
    for backend in ("torch", "faiss"):
        for batch in (1, 7, queries):
            cascade = Cascade(stored_levels(case), images, backend=backend)
            assert (cascade.build() == case["build_encodes"]).all()
            answers = cascade.search(range(queries), k=int(case["k"]), m=case["m"], batch=batch)
            assert (answers.ranking == case["ranking"]).all()
            assert (answers.image_encodes == case["new_image_encodes"]).all()
            assert (answers.text_encodes == case["text_encodes"]).all()
            np.testing.assert_allclose(cached_fractions(cascade), case["touched_fraction"], atol=1e-12)
            found = recalls(answers.ranking, case["labels"], case["recall_k"], images)
            np.testing.assert_allclose(found, case["recall"], atol=1e-12)


@pytest.mark.golden("cascades", "cascade")
def test_caches_after_every_query(case):
    cascade = Cascade(stored_levels(case), case["image_emb"].shape[1])
    cascade.build()
    for query, wanted in enumerate(case["cached_after"]):
        cascade.search([query], k=int(case["k"]), m=case["m"])
        for level, cached in enumerate(wanted):
            assert (cached_images(cascade, level) == cached).all()


@pytest.mark.golden("cascades", "topk")
def test_accuracy_experiment(case):
    from published.workloads import published_order

    images = case["image_emb"].shape[1]
    order = published_order(images, int(case["seed"]))
    assert (order == case["query_order"]).all()
    cascade = Cascade(stored_levels(case), images)
    cascade.build()
    answers = cascade.search(order, k=int(case["topk"].max()), m=case["m"])
    scores = recalls(answers.ranking, order, case["topk"], images)
    np.testing.assert_allclose(scores, case["topk_score"], atol=1e-12)
    printed = [str(line) for line in case["printed"]]
    percents = [int(line.rpartition(":")[2].removesuffix("%")) for line in printed if line.endswith("%")]
    assert distance(percents, 100 * np.array(cached_fractions(cascade)[1:])) < 1
    assert printed[len(percents) :] == [f"top{k}:{s:.5f}" for k, s in zip(case["topk"], scores, strict=True)]


# costs


@pytest.mark.golden("cascades", "speedup")
def test_timing_experiment_as_published(case):
    for given in case.content:
        arguments = {
            "baseline_seconds": given["base_total_seconds"],
            "cascade_seconds": given["cascade_total_seconds"],
            "images": given["n_images"],
            "f": given["f"],
            "baseline_m": given["base_topm"],
            "m": given["topm"],
        }
        default = timing_report(**arguments)
        level_lines = len(given["base_total_seconds"]) + len(given["cascade_total_seconds"])
        assert list(default.lines[:level_lines]) == given["printed"][:level_lines]
        if given["error"] is not None:
            with pytest.raises(Exception) as caught:
                timing_report(**arguments, published=True)
            assert type(caught.value).__name__ == given["error"]
            continue
        report = timing_report(**arguments, published=True)
        np.testing.assert_allclose(report.lifetime, given["speedup"], rtol=0, atol=1e-12)
        assert list(report.lines) == given["printed"]
        if len(given["base_total_seconds"]) == 1:
            assert default.query is None
            assert default.lines[-1] == "Per-query speedup:n/a"
        else:
            assert default == report


@pytest.mark.golden("cascades", "mac_formulas")
def test_mac_formulas(case):
    for given in case.content:
        tokens, width, layers = given["seq_len"], given["hidden"], given["layers"]
        head_width = width // given["heads"]
        assert macs_per_head(tokens, width, head_width) == given["mac_per_head"]
        assert macs_per_neuron(tokens, width) == given["mac_per_neuron"]
        heads, neurons = [given["heads"]] * layers, [given["intermediate"]] * layers
        assert encoder_macs(tokens, width, head_width, heads, neurons) == given["total"]


# data and preprocessing


@pytest.mark.golden("cascades", "caption_selection")
def test_caption_selection(case):
    readers = {"mscoco": parse_coco(case["coco_annotations"]), "flickr30k": parse_flickr(case["flickr_results_csv"])}
    for given in case["cases"]:
        files, captions = published_pairs(readers[given["dataset"]], given["layout"], given["n_samples"])
        assert list(files) == given["files"]
        assert list(captions) == given["captions"]


@pytest.mark.golden("cascades", "prompt_tokens")
def test_prompts(case):
    import open_clip

    from subnetbench.methods.parts.text_image.clip_towers import open_clip_ids

    tokeniser = open_clip.SimpleTokenizer()
    for given in case.content:
        published, intended = open_clip_ids(
            tokeniser, [fill_prompt(template, given["caption"]) for template in (PUBLISHED_PROMPT, PROMPT)]
        )
        assert published == given["no_space_ids"]
        assert intended == given["with_space_ids"]
        assert intended == given["openai_tokenizer_with_space_ids"]
        words = [tokeniser.decoder[token] for token in published[1:-1]]
        assert words == given["no_space_tokens"][1:-1]


@pytest.mark.golden("cascades", "clip_preprocess")
def test_preprocessing(case):
    for name, image in case.under("image_").items():
        wanted = case[f"pixels_{name.removesuffix('_uint8')}"]
        images = TensorImages(tensor(image).permute(2, 0, 1)[None])
        found = ClipPreprocessing(size=wanted.shape[-1])(images, np.array([0]))[0]
        assert distance(found, wanted) < 1e-6


# CLIP towers


@pytest.mark.golden("cascades", "tiny_clip_config", "tiny_clip_weights")
def test_plain_vit_reproduces_the_library(case):
    from subnetbench.methods.parts.vit.conversion import image_features, plain_vit

    model = tiny_clip(case)
    vit = plain_vit(model)
    images = torch.randn(3, vit.shape.channels, vit.shape.image_size, vit.shape.image_size)
    with torch.no_grad():
        assert distance(vit(images), image_features(model, images)) < 2e-5


@pytest.mark.golden("cascades", "clip_forward")
def test_clip_forward(case):
    from subnetbench.methods.parts.text_image.clip_towers import transformers_text_tower

    model = tiny_clip(case)
    encoder = ImageEncoder("clip", tiny_vit(case), ClipPreprocessing(size=case["pixel_values"].shape[-1]))
    assert distance(encoder.embed(tensor(case["pixel_values"])), case["image_embeds"]) < 2e-5
    ids = [list(row[mask == 1]) for row, mask in zip(case["input_ids"], case["attention_mask"], strict=True)]
    text = text_encoder(model, ids)
    texts = [str(i) for i in range(len(ids))]
    assert distance(text.embed(texts), case["text_embeds"]) < 2e-5
    one_by_one = torch.cat([text.embed([each]) for each in texts])
    assert distance(one_by_one, case["text_embeds_one_by_one"]) < 2e-5
    with torch.no_grad():
        assert distance(transformers_text_tower(model)(pad(ids, ids[0][-1])), case["text_embeds"]) < 2e-5


def text_encoder(model: Any, ids: list[list[int]]) -> TextEncoder:
    """The text tower of `model` for texts that are the numbers of given rows of token ids."""
    from subnetbench.methods.parts.text_image.clip_towers import transformers_text_tower

    return TextEncoder(
        "clip",
        transformers_text_tower(model),
        lambda texts: [ids[int(text)] for text in texts],
        context=model.config.text_config.max_position_embeddings,
        pad_token=ids[0][-1],
        digest=str(id(model)),
        template="{}",
    )


@pytest.mark.golden("cascades", "end_to_end_topk", "end_to_end_level0_config")
def test_end_to_end(case):
    from subnetbench.methods.parts.vit.conversion import plain_vit

    if case.path.suffix == ".json":
        case = companion(case, "end_to_end_topk", "npz")
    config = dict(companion(case, "end_to_end_level0_config", "json"))
    models = [clip_model(config, case.under("level0_weights.")), tiny_clip(case)]
    images = TensorImages(tensor(case["images_uint8"]).permute(0, 3, 1, 2))
    ids = [[int(token) for token in row if token >= 0] for row in case["input_ids_padded_minus1"]]
    texts = [str(i) for i in range(len(ids))]
    levels = []
    for number, model in enumerate(models):
        preprocessing = ClipPreprocessing(size=model.config.vision_config.image_size)
        image = ImageEncoder(f"level {number}", plain_vit(model), preprocessing)
        text = text_encoder(model, ids)
        found = image.embed_images(images, np.arange(len(images)))
        assert distance(found, case[f"level{number}_image_embeds"]) < 2e-5
        assert distance(text.embed(texts), case[f"level{number}_text_embeds"]) < 2e-5
        levels.append(bi_encoder_level(image, text, images))
    cascade = Cascade(levels, len(images))
    cascade.build()
    ranking = cascade.search(texts, k=int(case["topk"].max()), m=case["topm"]).ranking
    assert (ranking == case["ranking"]).all()
    scores = recalls(ranking, np.arange(len(texts)), case["topk"], len(images))
    np.testing.assert_allclose(scores, case["topk_score"], atol=1e-12)


@pytest.mark.golden("cascades", "masking_forward")
def test_token_masking(case):
    vit, images = tiny_vit(case), tensor(case["pixel_values"])
    for given in cases_of(case):
        kept = np.flatnonzero(given["kept_mask"])
        assert kept_count(vit.shape.patches, float(given["p"])) == given["n_kept"] == len(kept)
        published = TokenMaskedViT(vit, kept, published_positions=True)
        assert (published.positions.numpy() == given["position_ids_used"]).all()
        with torch.no_grad():
            assert distance(published(images), given["image_embeds"]) < 2e-5
            assert distance(TokenMaskedViT(vit, kept)(images), given["image_embeds_correct_positions"]) < 2e-5


# students


@pytest.mark.golden("cascades", "student_facts")
def test_student_sizes(case):
    for architecture, given in case.items():
        student = clip_student(architecture, embedding=given["embed_dim"])
        assert student.head.in_features == given["feature_dim"]
        assert sum(p.numel() for p in student.backbone.parameters()) == given["backbone_params"]
        assert sum(p.numel() for p in student.head.parameters()) == given["projection_params"]
        checkpoint = given["encoder_id"].split(",")[0]
        assert published_weights_file(checkpoint, architecture) == given["filename"]


@pytest.mark.golden("cascades", "distill_loss")
def test_distillation_loss_and_gradient(case):
    for given in cases_of(case):
        student = tensor(given["student"]).requires_grad_()
        loss = cosine_distillation_loss(tensor(given["teacher"]), student)
        loss.backward()
        assert abs(loss.item() - given["loss"]) < 1e-6
        assert distance(student.grad, given["grad_student"]) < 1e-6


def stored_head(case: Any, features: int) -> nn.Module:
    embedding = case["teacher_embeds"].shape[1]
    head = projection_head(features, embedding, layers=int(case["n_layers"]), hidden=int(case["n_hidden"]))
    head.load_state_dict({name: tensor(value) for name, value in case.under("projection_before.").items()})
    return head


def train_head(case: Any, head: nn.Module, features: Any) -> Tensor:
    return distil_head(
        head,
        features,
        tensor(case["teacher_embeds"]),
        epochs=int(case["epochs"]),
        batch_size=int(case["batch_size"]),
        lr=float(case["lr"]),
    )


@pytest.mark.golden(
    "cascades", "distill_linear", "distill_mlp", "distill_mlp1", "distill_mlp2", "distill_mlp3", "distill_mlp4"
)
def test_head_distillation(case):
    head = stored_head(case, case["features"].shape[1])
    losses = train_head(case, head, tensor(case["features"]).__getitem__)
    assert distance(losses, case["step_losses"]) < 2e-6
    for name, wanted in case.under("projection_after.").items():
        assert distance(head.state_dict()[name], wanted) < 2e-4


@pytest.mark.golden("cascades", "distill_batchnorm_quirk")
def test_published_distillation_lets_batch_norm_drift(case):
    def backbone() -> nn.Sequential:
        weight = case["net_before.0.weight"]
        convolution = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding="same", bias=False)
        network = nn.Sequential(convolution, nn.BatchNorm2d(len(weight)), nn.ReLU())
        network.load_state_dict({name: tensor(value) for name, value in case.under("net_before.").items()})
        return network

    images = tensor(case["pixel_values"])
    head = stored_head(case, len(case["net_before.0.weight"]))
    student = ClipStudent(backbone(), head, "published").train()
    losses = train_head(case, head, lambda rows: student.features(images[rows]))
    assert distance(losses, case["step_losses"]) < 1e-4
    for name, wanted in case.under("projection_after.").items():
        assert distance(head.state_dict()[name], wanted) < 1e-4
    for name, wanted in case.under("net_after.").items():
        assert distance(student.backbone.state_dict()[name], wanted) < 1e-4
    with torch.no_grad():
        drifted, reloaded = student.eval()(images), ClipStudent(backbone(), head).eval()(images)
    assert distance(drifted, case["student_embeds_eval_drifted_stats"]) < 1e-4
    assert distance(reloaded, case["student_embeds_reloaded"]) < 1e-4


# pruning


def check_masks(found: Masks, heads: Any, neurons: Any) -> None:
    assert (found.heads.numpy() == heads).all()
    assert (found.neurons.numpy() == neurons).all()


@pytest.mark.golden("cascades", "fisher_search")
def test_fisher_search_and_rearrangement(case):
    gradients = CalibrationGradients(
        tensor(case["head_grads"]), tensor(case["neuron_grads"]), torch.zeros(len(case["head_grads"]))
    )
    information = Masks(fisher_information(gradients.heads), fisher_information(gradients.neurons))
    np.testing.assert_allclose(information.heads, case["head_fisher"], rtol=1e-5)
    np.testing.assert_allclose(information.neurons, case["neuron_fisher"], rtol=1e-5)
    heads, width = case["head_grads"].shape[2], int(case["hidden_size"])
    costs = UnitCosts.of(int(case["seq_len"]), width, width // heads)
    for capacity, given in zip(case["constraints"], cases_of(case), strict=True):
        masks = search_masks(information, costs, float(capacity), guard_budget=False)
        check_masks(masks, given["head_mask"], given["neuron_mask"])
        assert costs.total(masks) == given["pruned_mac"]
        assert costs.total(Masks(*map(torch.ones_like, masks))) == given["original_mac"]
        rearranged = rearrange_masks(masks, gradients)
        check_masks(rearranged, given["head_mask_rearranged"], given["neuron_mask_rearranged"])
        guarded = search_masks(information, costs, float(capacity))
        assert costs.total(guarded) <= capacity * given["original_mac"]


@pytest.mark.golden("cascades", "sensitivity")
def test_sensitivity_pruning(case):
    mask = torch.ones(case["head_grads"].shape[2:])
    for gradients, wanted in zip(case["head_grads"], case["head_mask_after"], strict=True):
        mask = keep_best_head(mask, fisher_information(tensor(gradients)))
        assert (mask.numpy() == wanted).all()


@pytest.mark.golden("cascades", "fisher_tiny_clip")
def test_fisher_pruning_of_a_tiny_clip(case):
    model, vit, images = tiny_clip(case), tiny_vit(case), tensor(case["pixel_values"])
    scale = model.logit_scale.item()
    batches = list(zip(images, tensor(case["target_embeds"]), strict=True))
    gradients = calibration_gradients(
        vit, batches, full_masks(vit), lambda found, wanted: symmetric_clip_loss(found, wanted, scale)
    )
    assert distance(gradients.losses, case["batch_losses"]) < 2e-6
    assert distance(gradients.heads, case["head_grads"]) < 5e-6
    assert distance(gradients.neurons, case["neuron_grads"]) < 5e-6

    information = Masks(fisher_information(gradients.heads), fisher_information(gradients.neurons))
    costs = UnitCosts.of(int(case["seq_len"]), vit.shape.width, vit.shape.head_width)
    masks = search_masks(information, costs, float(case["constraint"]), guard_budget=False)
    check_masks(masks, case["head_mask_search"], case["neuron_mask_search"])
    rearranged = rearrange_masks(masks, gradients)
    check_masks(rearranged, case["head_mask_rearranged"], case["neuron_mask_rearranged"])

    solved = set()

    def compare(step: TuningStep) -> None:
        name = f"{'mha' if step.part == 'heads' else 'ffn'}{step.layer}"
        for found, wanted in zip(step.equations, (case[f"{name}_ATA"], case[f"{name}_ATB"]), strict=True):
            assert distance(found, wanted) < 2e-6 * np.abs(wanted).max()
        assert distance(step.factors, case[f"{name}_scale"]) < 1e-5
        solved.add(name)

    tuned = tune_masks(vit, rearranged, images, limit=None, report=compare)
    assert solved == {name.removesuffix("_scale") for name in case if name.endswith("_scale")}
    assert distance(tuned.heads, case["head_mask_rescaled"]) < 1e-5
    assert distance(tuned.neurons, case["neuron_mask_rescaled"]) < 1e-5
    with torch.no_grad():
        assert distance(vit(images[0]), case["embeds_dense"]) < 2e-5
        assert distance(MaskedViT(vit, rearranged)(images[0]), case["embeds_masked_binary"]) < 2e-5
        assert distance(MaskedViT(vit, tuned)(images[0]), case["embeds_masked_rescaled"]) < 2e-5
        compacted = compact(vit, tuned)(images[0])
    assert distance(compacted, case.get("embeds_compacted", case["embeds_masked_rescaled"])) < 2e-5
