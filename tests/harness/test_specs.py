import json

import pytest

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.method.resolve import network_of, resolve
from subnetbench.harness.runs.spec import spec_from_json


def test_defaults_are_written_out_and_do_not_change_the_id():
    plain = resolve("dense", "emoji")
    spelled = resolve("dense", "emoji", config={"lr": plain.config["lr"], "epochs": plain.config["epochs"]})
    assert plain.run_id == spelled.run_id
    assert plain.config["momentum"] == 0.9


def test_everything_that_bits_depend_on_changes_the_id():
    base = resolve("dense", "emoji")
    others = [
        resolve("dense", "emoji", seed=1),
        resolve("dense", "emoji", config={"lr": 0.2}),
        resolve("dense", "emoji", data={"train_size": 500}),
        resolve("dense", "emoji", compute={"threads": 2}),
        resolve("dense", "emoji", compute={"processes": 2}),
        resolve("edge_popup", "emoji"),
    ]
    assert len({spec.run_id for spec in [base, *others]}) == 7


def test_seeds_share_a_config_hash():
    a, b = resolve("dense", "emoji", seed=1), resolve("dense", "emoji", seed=2)
    assert a.config_hash == b.config_hash
    assert a.config_hash != resolve("dense", "emoji", config={"lr": 0.3}).config_hash


def test_json_round_trip():
    spec = resolve("edge_popup", "emoji", config={"sparsity": 0.7}, seed=3)
    again = spec_from_json(spec.model_dump_json())
    assert again == spec
    assert again.run_id == spec.run_id


def test_task_is_the_common_one():
    assert resolve("triplet", "emoji").task == "retrieval"
    assert resolve("dense", "emoji").task == "classification"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "dence"}, "did you mean 'dense'"),
        ({"dataset": "emogi"}, "did you mean 'emoji'"),
        ({"config": {"sparcity": 0.5}, "method": "edge_popup"}, "did you mean 'sparsity'"),
        ({"config": {"sparsity": 1.5}, "method": "edge_popup"}, "less than 1"),
        ({"task": "retrieval"}, "retrieval was asked for"),
        ({"task": "sorting"}, "no such task"),
        ({"method": "triplet", "dataset": "cifar10"}, "offers classification"),
        ({"compute": {"threads": 0}}, "compute.threads"),
        ({"inputs": {"teacher": {"method": "dense"}}}, "has no such input"),
        ({"config": "lr"}, r"config.*must be a mapping|must be a mapping.*config"),
        ({"inputs": ["teacher"]}, r"inputs.*must be a mapping|must be a mapping.*inputs"),
    ],
)
def test_bad_parts_are_one_message(arguments, words):
    with pytest.raises(UserError, match=words):
        resolve(**{"method": "dense", "dataset": "emoji", **arguments})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 99}', '{"version": 1, "method": 3}'])
def test_foreign_json_is_refused(text):
    with pytest.raises(UserError):
        spec_from_json(text)


def test_a_future_version_is_named():
    plain = json.loads(resolve("dense", "emoji").model_dump_json()) | {"version": 2}
    with pytest.raises(UserError, match=r"spec\.version.*got 2.*allowed: 1"):
        spec_from_json(json.dumps(plain))


def test_inputs_that_follow_the_seed_leave_the_config_hash_alone():
    def student(seed):
        spec = resolve("dense", "emoji", seed=seed)
        return spec.model_copy(update={"inputs": {"teacher": resolve("dense", "emoji", seed=seed)}})

    assert student(1).config_hash == student(2).config_hash
    assert student(1).run_id != student(1).model_copy(update={"inputs": {}}).run_id
    other = student(1).model_copy(update={"inputs": {"teacher": resolve("dense", "emoji", config={"lr": 0.3}, seed=1)}})
    assert other.config_hash != student(1).config_hash
    assert [spec.run_id for spec in student(1).dependencies()] == [resolve("dense", "emoji", seed=1).run_id]


def test_a_run_is_named_by_its_network_or_by_those_of_its_inputs():
    towers = {"method": "two_tower", "config": {"image": "cnn16-32"}}
    student = {"method": "clip_student", "config": {"network": "cnn8-16"}, "inputs": {"teacher": towers}}

    def cascade(*levels):
        return network_of(resolve("cascade", "emoji", inputs={"levels": list(levels)}))

    assert network_of(resolve("dense", "emoji", config={"network": "conv2"})) == "conv2"
    assert network_of(resolve("two_tower", "emoji")) == "vit"
    clip = {"image": "clip", "clip_path": "models/clip-vit-base-patch16", "epochs": 0}
    assert network_of(resolve("two_tower", "emoji", config=clip)) == "clip-vit-base-patch16"
    assert network_of(resolve("early_exit", "emoji", inputs={"teacher": {"method": "two_tower"}})) == "vit"
    assert cascade(student, towers) == "cnn8-16 > cnn16-32"
    assert cascade(student, {"run": "two_tower-emoji-s0-0123456789"}) == ""
    plain = resolve("dense", "emoji", config={"network": "conv2"})
    assert network_of(plain.model_copy(update={"method": "gone"})) == "conv2"
    assert network_of(plain.model_copy(update={"config": {"network": "conv2", "gone": 1}})) == "conv2"
