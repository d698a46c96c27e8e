"""YAML and JSON that people write: nothing in it is changed in silence."""

import pytest

from subnetbench.harness.cli.common import assignments
from subnetbench.harness.core.config import Config
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.written import MAX_BYTES, parse_json, parse_value, parse_yaml, read_written


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *(("no", "no"), ("on", "on"), ("yes", "yes"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01")),
        *(("010", "010"), ("0", 0), ("-3", -3), ("+4", 4), ("0x1f", 31), ("0o17", 15), ("1_000", "1_000")),
        *(("1e-1", 0.1), ("1.", 1.0), (".5", 0.5), ("-.inf", float("-inf")), ("true", True), ("~", None), ("", None)),
        *(("'1'", "1"), ("[1e-3, no]", [0.001, "no"])),
    ],
)
def test_scalars_are_read_by_the_core_schema(written, value):
    found = parse_yaml(f"a: {written}\n", "x.yaml")["a"]
    assert found == value
    assert type(found) is type(value)


def test_as_texts_everything_stays_what_was_written():
    content = parse_yaml("no: [01, 1e3]\n007: {x: null}\n", "x.yaml", texts=True)
    assert content == {"no": ["01", "1e3"], "007": {"x": "null"}}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("seeds: [0]\nruns: []\nseeds: [7]\n", "line 3, column 1: the key 'seeds' is there twice, first in line 1"),
        ("a:\n  b: {c: 1, c: 2}\n", "line 2, column 13: the key 'c' is there twice"),
        ("1: a\n1: b\n", "the key '1' is there twice"),
    ],
)
def test_keys_that_are_there_twice_are_errors_with_their_line(text, where):
    with pytest.raises(UserError, match=where):
        parse_yaml(text, "x.yaml")


def test_merged_keys_may_be_overridden():
    assert parse_yaml("b: &b {p: 1, q: 2}\nr: {<<: *b, q: 3}\n", "x")["r"] == {"p": 1, "q": 3}


def test_json_keys_that_are_there_twice_are_errors():
    with pytest.raises(UserError, match=r"a key is there twice.*'c'"):
        parse_json('{"a": {"c": 1, "c": 2}}', "x.json")


@pytest.mark.parametrize("text", ["[" * 20000, '{"a":' * 20000, "a: &x [*x]", "a: !!python/object/apply:os.getcwd []"])
def test_hostile_texts_are_refused_in_one_line(text):
    for parse in (parse_yaml, parse_json):
        with pytest.raises(UserError) as caught:
            parse(text, "x")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


def test_aliases_that_multiply_are_refused_before_they_are_followed():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(UserError, match="more than 1,000,000 values"):
        parse_yaml("\n".join(lines), "x")


def test_files(tmp_path):
    marked = tmp_path / "marked.yaml"
    marked.write_bytes("\ufeffname: ä\n".encode())
    assert read_written(marked) == {"name": "ä"}
    (tmp_path / "x.json").write_bytes("\ufeff[1]".encode())
    assert read_written(tmp_path / "x.json") == [1]
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe4\n")
    (tmp_path / "large.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    for name, fault in (
        ("latin.yaml", "not UTF-8"),
        ("large.yaml", "larger than"),
        ("none.yaml", "cannot be read: No such file"),
        ("", "not a regular file"),
    ):
        with pytest.raises(UserError, match=fault):
            read_written(tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(UserError, match="not a regular file"):
        read_written(tmp_path / "pipe.yaml")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("path=a #b", {"path": "a #b"}),
        ("path=007", {"path": "007"}),
        ("path=2024-01-01", {"path": "2024-01-01"}),
        ("path=a: b", {"path": "a: b"}),
        ('path="/x/a,b=c/d",n=2', {"path": "/x/a,b=c/d", "n": 2}),
        ("path='it''s,a=b'", {"path": "it's,a=b"}),
        ("sparsity=0.7,epochs=3", {"sparsity": 0.7, "epochs": 3}),
        ("capacities=[0.2,0.4],lr=1e-3", {"capacities": [0.2, 0.4], "lr": 0.001}),
        ("path=/x/a,b/c", {"path": "/x/a,b/c"}),
        ("flag=true,other=null", {"flag": True, "other": None}),
    ],
)
def test_values_of_the_command_line(text, values):
    assert assignments([text], "--set") == values


@pytest.mark.parametrize("texts", [["epochs"], ["=3"], ["a=1", "a=2"], ["a=1,a=2"], ["a=[1"], ['a="x" y']])
def test_values_that_cannot_be_read(texts):
    if texts == ['a="x" y']:
        with pytest.raises(UserError, match="not valid YAML"):
            assignments(texts, "--set")
        return
    with pytest.raises(UserError, match="--set"):
        assignments(texts, "--set")


def test_values_with_a_quote_inside_stay():
    assert parse_value("it's", "x") == "it's"


class _Numbers(Config):
    epochs: int = 1
    lr: float | None = None
    flag: bool = False
    level: bool | int = 0


def test_truth_values_are_no_numbers():
    for name in ("epochs", "lr"):
        with pytest.raises(UserError, match=f"config.{name}: must be a number .got True."):
            _Numbers.parse({name: True})
    with pytest.raises(UserError, match=r"config\.lr"):
        _Numbers.parse(parse_yaml("lr: yes", "x"))
    assert _Numbers.parse({"flag": True, "level": True}).flag
    assert _Numbers.parse({"epochs": "010"}).epochs == 10
