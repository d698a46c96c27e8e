"""Files of the published programs: networks with their key names give the same outputs once they are imported."""

import copy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from published import networks
from subnetbench import load_run
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.hashing import file_digest
from subnetbench.harness.execution.run import execute
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.method.weights import Weights, fill, read_weights
from subnetbench.harness.records.read import read_records
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.testing.short_runs import train_here
from subnetbench.methods.parts.networks.embedding import embedding_network
from subnetbench.methods.parts.networks.foreign import fill_embedding
from subnetbench.methods.parts.text_image.base import TINY_VIT

TEACHER = {"method": "two_tower", "config": {**TINY_VIT, "epochs": 0}}
NO_RECALIBRATION = {"image_size": 32, "recalibration": "none"}


@dataclass(frozen=True)
class Case:
    """A published network: how its file looks, what reads it, and outputs of its variants for images."""

    method: str
    network: nn.Module
    file: dict[str, object]
    config: dict[str, object]
    options: dict[str, tuple[object, ...]]
    size: int = 8


def _aslp(**more):
    return {"state_dict": None, "hyper_parameters": {"weight_rescale": True}, "epoch": 3, **more}


def _cases():
    small = {"image_size": 8}
    aslp = networks.randomised(networks.Conv2(factor=True))
    supermask = networks.randomised(networks.Conv2())
    popup = networks.randomised(networks.Conv2(networks.HalfMaskedLayer))
    hidden = networks.randomised(networks.HiddenConv2())
    soft = networks.randomised(networks.SoftResNet())
    raml = networks.randomised(networks.ImageRetrievalNet(16))
    prunnet = networks.randomised(networks.PrunNetResNet18(16, 200))
    switchnet = networks.randomised(networks.SwitchResNet18(16, 200))
    parallel = {f"module.{name}": value for name, value in hidden.state_dict().items()}
    own = {"subnetwork": ()}
    return {
        "ASLP with factors": Case("aslp", aslp, _aslp(), small, own),
        "supermask": Case("supermask", supermask, _aslp(), small, own),
        "edge-popup of the ASLP code": Case("edge_popup", popup, _aslp(), small, own),
        "edge-popup": Case(
            "edge_popup", hidden, {"state_dict": parallel, "arch": "Conv2"}, {**small, "sparsity": 0.7}, own
        ),
        "Continuous Sparsification": Case("continuous_sparsification", soft, {}, small, {"ticket": ()}),
        "RAML": Case(
            "distillation", raml, {"meta": raml.meta, "state_dict": None}, {"image_size": 32}, {"dense": ()}, 32
        ),
        "RAML's student": Case(
            "distillation",
            raml,
            {"state_dict": None, "max_map": 0.4},
            {"network": "resnet18", "dim": 16, "image_size": 32},
            {"dense": ()},
            32,
        ),
        "PrunNet": Case(
            "prunnet",
            prunnet,
            {"model": None, "optimizer": {"state": {}}},
            {**NO_RECALIBRATION, "capacities": [0.5]},
            {"dense": (0.0,), "capacity_0.5": (0.5,)},
            32,
        ),
        "SwitchNet": Case(
            "switchnet",
            switchnet,
            {"model": None, "ema": {"conv1.weight": torch.ones(1)}},
            {**NO_RECALIBRATION, "widths": [1.0, 0.5]},
            {"dense": (1,), "width_0.5": (0,)},
            32,
        ),
    }


CASES = _cases()


def _written(case: Case, folder: Path) -> Path:
    state = case.network.state_dict()
    content = {key: state if value is None else value for key, value in case.file.items()} or dict(state)
    torch.save(content, folder / "official.pth")
    return folder / "official.pth"


def _import_spec(method, file, config=None, inputs=None):
    from subnetbench.harness.method.registry import get_method

    named = {**get_method(method).import_config(file), **(config or {})}
    return resolve(method, "emoji", config=named, inputs=inputs, compute={"device": "cpu"})


@pytest.mark.parametrize("name", CASES)
def test_outputs_of_published_networks_are_kept(name, tmp_path, caplog):
    case = CASES[name]
    spec = _import_spec(case.method, _written(case, tmp_path), case.config)
    images = torch.randn(2, 3, case.size, case.size, generator=torch.Generator().manual_seed(1))
    with train_here(spec, tmp_path, inputs=tmp_path) as (method, modules, context), torch.no_grad():
        offered = {variant.name: variant for variant in method.variants(modules.eval(), context)}
        for variant, options in case.options.items():
            expected = case.network(images, *options)
            assert expected.std() > 1e-3
            difference = (offered[variant].build()(images) - expected).abs().max() / expected.abs().max()
            assert float(difference) < 1e-6
        assert ("not read: ema" in caplog.text) == ("ema" in case.file)
        if "meta" in case.file:
            preprocessing = next(iter(offered.values())).preprocessing
            assert (preprocessing.mean, preprocessing.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("network", ["timm/resnet10t", "torchvision/squeezenet1_1"])
def test_libraries_state_dictionaries(network, tmp_path):
    import timm
    import torchvision

    library, _, model = network.partition("/")
    make = timm.create_model if library == "timm" else torchvision.models.get_model
    official = networks.randomised(make(model, num_classes=8))
    torch.save(official.state_dict(), tmp_path / "library.pth")
    spec = _import_spec("dense", tmp_path / "library.pth", {"network": network, "image_size": 32})
    images = torch.randn(2, 3, 32, 32)
    with train_here(spec, tmp_path, inputs=tmp_path) as (method, modules, context), torch.no_grad():
        (variant,) = method.variants(modules.eval(), context)
        torch.testing.assert_close(variant.build()(images), official(images), rtol=1e-6, atol=1e-6)


def test_distilled_heads(tmp_path):
    """The backbone is the published one that an installed package has; the file holds the head alone."""
    head = networks.randomised(nn.Sequential(nn.Linear(1280, 8)))
    torch.save(head.state_dict(), tmp_path / "openai-clip_tf_efficientnet_lite0_512_1.pt")
    config = {"network": "tf_efficientnet_lite0", "image_size": 32}
    spec = _import_spec(
        "clip_student", tmp_path / "openai-clip_tf_efficientnet_lite0_512_1.pt", config, {"teacher": TEACHER}
    )
    for each in spec.dependencies():
        assert execute(each, tmp_path, RunSettings(trackers=(), split="validation")) == "finished"
    with train_here(spec, tmp_path / "run", inputs=tmp_path) as (method, modules, context), torch.no_grad():
        (variant,) = method.variants(modules.eval(), context)
        network = variant.build()
        images = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(network(images), head(network.features(images)), rtol=1e-6, atol=1e-6)
    method.config = method.config.model_copy(update={"pretrained": False})
    with pytest.raises(UserError, match="published backbone"):
        method.load_weights(modules, read_weights(tmp_path / "openai-clip_tf_efficientnet_lite0_512_1.pt"), context)


def test_pruned_clip_towers(tmp_path):
    """Layers of unequal size, one of them without neurons, in the layout of transformers."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = CLIPVisionConfig(**sizes, image_size=16, patch_size=4, projection_dim=8, hidden_act="gelu")
    official = networks.randomised(CLIPVisionModelWithProjection(config))
    kept = ([1], [0, 1], [0]), ([3, 5, 9], [], list(range(64)))
    state = dict(official.state_dict())
    for i, (heads, neurons) in enumerate(zip(*kept, strict=True)):
        prefix = f"vision_model.encoder.layers.{i}"
        channels = [head * 8 + c for head in heads for c in range(8)]
        for name in ("q_proj", "k_proj", "v_proj"):
            for kind in ("weight", "bias"):
                state[f"{prefix}.self_attn.{name}.{kind}"] = state[f"{prefix}.self_attn.{name}.{kind}"][channels]
        gone = [c for c in range(16) if c not in channels]
        with torch.no_grad():
            official.get_parameter(f"{prefix}.self_attn.out_proj.weight")[:, gone] = 0
            official.get_parameter(f"{prefix}.mlp.fc2.weight")[:, [n for n in range(64) if n not in neurons]] = 0
        state[f"{prefix}.self_attn.out_proj.weight"] = state[f"{prefix}.self_attn.out_proj.weight"][:, channels]
        for kind in ("weight", "bias"):
            state[f"{prefix}.mlp.fc1.{kind}"] = state[f"{prefix}.mlp.fc1.{kind}"][neurons]
        state[f"{prefix}.mlp.fc2.weight"] = state[f"{prefix}.mlp.fc2.weight"][:, neurons]
    torch.save({name: value.clone() for name, value in state.items()}, tmp_path / "pruned.pt")
    spec = _import_spec("fisher_pruning", tmp_path / "pruned.pt", {}, {"teacher": TEACHER})
    for each in spec.dependencies():
        assert execute(each, tmp_path, RunSettings(trackers=(), split="validation")) == "finished"
    images = torch.randn(2, 3, 16, 16)
    with train_here(spec, tmp_path / "run", inputs=tmp_path) as (method, modules, context), torch.no_grad():
        (variant,) = method.variants(modules.eval(), context)
        assert (variant.details["heads_kept"], variant.details["neurons_kept"]) == (4, 67)
        expected = official(images).image_embeds
        assert float((variant.build()(images) - expected).abs().max() / expected.abs().max()) < 1e-6


def test_a_library_s_backbone_starts_training_and_imports_no_embedding(tmp_path):
    from torchvision.models import resnet18

    official = networks.randomised(resnet18(weights=None))
    torch.save(official.state_dict(), tmp_path / "backbone.pth")
    config = {"network": "resnet18", "image_size": 32, "epochs": 1, "limit_steps": 1, "batch_size": 8, "lr": 1e-12}
    config |= {"weights": str(tmp_path / "backbone.pth"), "optimizer": "sgd", "weight_decay": 0.0}
    spec = resolve("triplet", "emoji", config=config, compute={"device": "cpu"})
    with train_here(spec, tmp_path, inputs=tmp_path) as (_, modules, _):
        trained = modules["network"].backbone.state_dict()
        torch.testing.assert_close(trained["layer4.1.conv2.weight"], official.layer4[1].conv2.weight, rtol=0, atol=1e-6)
    spec = resolve("triplet", "emoji", config={**config, "epochs": 0}, compute={"device": "cpu"})
    missing = r"lacks pool\.p, whitening\.weight, whitening\.bias"
    with pytest.raises(UserError, match=missing), train_here(spec, tmp_path / "other", inputs=tmp_path):
        pass


@pytest.mark.parametrize("name", ["mnasnet0_5", "swin_t", "mobilenet_v3_small", "timm/mobilenetv3_small_050"])
def test_backbones_of_libraries_are_whole_without_their_heads(name, tmp_path):
    import timm
    from torchvision import models

    official = timm.create_model(name[5:]) if "/" in name else models.get_model(name, weights=None)
    network = embedding_network(name, image_size=64, dim=8)
    fill_embedding(network, Weights(tmp_path, networks.randomised(official).state_dict()), whole=False)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = official.forward_features(images) if "/" in name else _maps(official, images)
        difference = (network.eval().backbone(images) - expected).abs().max() / expected.abs().max()
    assert float(difference) < 1e-6


def _maps(network, images):
    """The last feature map of a network of torchvision, by its own parts."""
    if hasattr(network, "permute"):
        return network.permute(network.norm(network.features(images)))
    return (network.features if hasattr(network, "features") else network.layers)(images)


def test_openai_s_files_are_known_by_their_sizes(tmp_path):
    from subnetbench.methods.two_tower import TwoTower

    text = {
        "input_resolution": torch.tensor(224),
        "vocab_size": torch.tensor(9),
        "text_projection": torch.zeros(1, 512),
    }
    layers = {f"visual.transformer.resblocks.{i}.ln_1.bias": torch.zeros(1) for i in range(12)}
    torch.save({**text, **layers, "visual.conv1.weight": torch.zeros(768, 1, 32, 32)}, tmp_path / "openai.pt")
    found = TwoTower.import_config(tmp_path / "openai.pt")
    assert (found["clip_architecture"], found["epochs"]) == ("ViT-B-32-quickgelu", 0)
    torch.save({"text_projection": torch.zeros(1, 512)}, tmp_path / "laion.pt")
    assert "clip_architecture" not in TwoTower.import_config(tmp_path / "laion.pt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("fc2.mask"), r"it lacks scores\.fc2\.weight"),
        (lambda s: s.update(extra=torch.ones(1)), r"the network has no base\.extra"),
        (lambda s: s.update({"fc3.weight": torch.ones(9, 256)}), r"base\.fc3\.weight is \(9, 256\) and not \(8, 256\)"),
        (lambda s: s.update({"fc3.bias": torch.ones(8, dtype=torch.int8)}), r"base\.fc3\.bias is torch\.int8"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(change, words, tmp_path):
    case = copy.copy(CASES["supermask"])
    state = dict(case.network.state_dict())
    change(state)
    torch.save(state, tmp_path / "wrong.pth")
    spec = _import_spec("supermask", tmp_path / "wrong.pth", {"network": "conv2", "image_size": 8})
    with pytest.raises(UserError, match=words), train_here(spec, tmp_path, inputs=tmp_path):
        pass


@pytest.mark.parametrize("name", ["whole", "it's $(touch run) `touch run`"])
def test_pickled_modules_are_refused_with_the_line_that_converts_them(tmp_path, name):
    network = nn.Linear(2, 3)
    torch.save(network, tmp_path / f"{name}.pt")
    with pytest.raises(UserError, match="code in files is not run") as refused:
        read_weights(tmp_path / f"{name}.pt")
    line = str(refused.value).partition("convert it: ")[2]
    assert line.startswith("python -c ")
    subprocess.run(line.replace("python", shlex.quote(sys.executable), 1), shell=True, check=True, cwd=tmp_path)
    fill(nn.Linear(2, 3), read_weights(tmp_path / f"{name}.plain.pth"))
    assert not (tmp_path / "run").exists()


def test_files_are_inputs_of_the_role_s_method_and_part_of_the_identity(tmp_path):
    file = _written(CASES["RAML"], tmp_path)

    def student(given):
        config = {"network": "cnn8-8", "dim": 16, "image_size": 16}
        return resolve("distillation", "emoji", config=config, inputs={"teacher": given}, compute={"device": "cpu"})

    (teacher,) = student(str(file)).dependencies()
    assert (teacher.method, teacher.config["epochs"], teacher.config["mode"]) == ("distillation", 0, "sym")
    assert (teacher.config["network"], teacher.config["weights"]) == ("resnet18", str(file))
    assert student({"file": str(file), "config": {"image_size": 32}}).dependencies()[0].config["image_size"] == 32
    before = student(str(file)).run_id, teacher.run_id
    torch.save({**read_weights(file).settings, "state_dict": networks.ImageRetrievalNet(16).state_dict()}, file)
    after = student(str(file))
    assert after.run_id != before[0]
    assert after.dependencies()[0].run_id != before[1]
    with pytest.raises(UserError, match=r"no such file"):
        student(str(tmp_path / "nowhere.pth"))
    with pytest.raises(UserError, match="takes no weights"):
        student({"file": str(file), "as": "cascade"})


def test_an_import_is_recorded_as_one_and_needs_its_file_no_more(tmp_path):
    case = CASES["supermask"]
    file = _written(case, tmp_path)
    spec = _import_spec("supermask", file, {"image_size": 8, "sampled_masks": 0})
    assert spec.files["weights"] == file_digest(file)
    assert execute(spec, tmp_path, RunSettings(trackers=())) == "finished"
    row = read_records(tmp_path).runs.to_pylist()[0]
    assert row["budget"] == "none of its own: imported"
    assert (row["training_macs"], row["steps"]) == (0, 0)
    assert row["input_training_macs"] is None
    assert spec.files["weights"][:16] in row["provenance_json"]
    images = torch.randn(2, 3, 8, 8)
    for content in (b"another file", None):
        file.unlink() if content is None else file.write_bytes(content)
        opened = load_run(RunFolder(tmp_path, spec.run_id).path).load(device="cpu")
        torch.testing.assert_close(opened.variant().build()(images), case.network(images), rtol=1e-5, atol=1e-6)


def test_ids_of_runs_without_a_file_are_what_they_were():
    fields = {"weights", "pixel_mean", "pixel_std"}
    for method in ("dense", "distillation", "clip_student", "fisher_pruning"):
        assert not fields & set(resolve(method, "emoji").config)
    given = {"network": "conv2", "image_size": 8, "pixel_mean": [0.1, 0.2, 0.3]}
    assert resolve("dense", "emoji", config=given).config["pixel_mean"] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("content", [{"a": 1}, [torch.ones(1)], {"optimizer": {"state": torch.ones(1)}}])
def test_files_without_weights_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "nothing.pth")
    with pytest.raises(UserError, match="holds no table of tensors"):
        read_weights(tmp_path / "nothing.pth")


def test_half_precision_is_read_and_safetensors_too(tmp_path):
    from safetensors.torch import save_file

    network = nn.Linear(2, 3)
    save_file({name: value.half() for name, value in network.state_dict().items()}, tmp_path / "half.safetensors")
    copied = nn.Linear(2, 3)
    fill(copied, read_weights(tmp_path / "half.safetensors"))
    torch.testing.assert_close(copied.weight, network.weight, rtol=1e-3, atol=1e-3)
    assert copied.weight.dtype == torch.float32
    with pytest.raises(UserError, match="it lacks bias"):
        fill(copied, Weights(tmp_path, {"weight": torch.ones(3, 2)}))
