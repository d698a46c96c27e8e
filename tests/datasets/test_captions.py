"""Readers of captioned image sets and the two protocols."""

import json
import subprocess
import sys

import pytest

from published.captions import published_pairs
from subnetbench.datasets.parts.captions import parse_coco, parse_flickr, queries, read_coco, read_flickr
from subnetbench.harness.core.errors import DataError, UserError

KAGGLE = """image_name| comment_number| comment
b.jpg| 0| Two "friends" , talking .
b.jpg| 1| A | bar .
a.jpg| 0|  led by a space
a.jpg| 4   A dog runs across the grass .
"""
COCO = {
    "images": [{"id": 20, "file_name": "000000000020.jpg"}, {"id": 3, "file_name": "000000000003.jpg"}],
    "annotations": [
        {"image_id": 20, "caption": "first of 20"},
        {"image_id": 3, "caption": "first of 3"},
        {"image_id": 20, "caption": "second of 20"},
    ],
}


def test_kaggle_rows_and_the_one_without_its_separator():
    captioned = parse_flickr(KAGGLE)
    assert captioned.files == ("a.jpg", "b.jpg")
    assert captioned.captions == (
        (" led by a space", "A dog runs across the grass ."),
        ('Two "friends" , talking .', "A | bar ."),
    )
    assert captioned.order == ((1, 0), (1, 1), (0, 0), (0, 1))
    assert parse_flickr(KAGGLE.replace("\n", "\r\n")) == captioned


def test_a_byte_order_mark_is_no_part_of_the_annotations(tmp_path):
    for name, content, read in (("a.json", json.dumps(COCO), read_coco), ("a.csv", KAGGLE, read_flickr)):
        (tmp_path / name).write_text(content, encoding="utf-8")
        plain = read(tmp_path / name)
        (tmp_path / name).write_text("\ufeff" + content, encoding="utf-8")
        assert read(tmp_path / name) == plain


@pytest.mark.parametrize("caption", [None, 3, ["a"]])
def test_a_caption_that_is_no_text_is_an_error(caption):
    rows = [{"image_id": 20, "caption": caption}]
    with pytest.raises(DataError, match=r"000000000020\.jpg is no text"):
        parse_coco({**COCO, "annotations": rows})


def test_the_token_file_of_torchvision():
    text = "a.jpg#0\tA dog .\na.jpg#1\tA cat| .\n"
    assert parse_flickr(text).captions == (("A dog .", "A cat| ."),)


def test_coco_is_ordered_by_number():
    captioned = parse_coco(COCO)
    assert captioned.files == ("000000000003.jpg", "000000000020.jpg")
    assert captioned.captions == (("first of 3",), ("first of 20", "second of 20"))


def test_both_protocols_give_an_image_one_index():
    captioned = parse_coco(COCO)
    first, everything = queries(captioned), queries(captioned, "all_captions")
    assert (first.texts, first.images) == (("first of 3", "first of 20"), (0, 1))
    assert (everything.texts, everything.images) == (("first of 20", "first of 3", "second of 20"), (1, 0, 1))


def test_published_layouts():
    captioned = parse_coco(COCO)
    assert published_pairs(captioned, "image-caption[-1]")[1] == ("first of 3", "second of 20")
    assert published_pairs(captioned, "caption", 2)[0] == ("000000000020.jpg", "000000000003.jpg")
    for layout in ("image-caption[1]", "image-caption[10]", "captions"):
        with pytest.raises(UserError, match="layout"):
            published_pairs(captioned, layout)
    with pytest.raises(UserError, match="n_samples"):
        published_pairs(captioned, "caption", 0)
    with pytest.raises(UserError, match="protocol"):
        queries(captioned, "first")


def test_files_are_read(tmp_path):
    (tmp_path / "captions.json").write_text(json.dumps(COCO))
    (tmp_path / "results.csv").write_text(KAGGLE)
    assert read_coco(tmp_path / "captions.json") == parse_coco(COCO)
    assert read_flickr(tmp_path / "results.csv") == parse_flickr(KAGGLE)
    for read in (read_coco, read_flickr):
        with pytest.raises(DataError, match="missing"):
            read(tmp_path / "missing")
    (tmp_path / "captions.json").write_text("{")
    with pytest.raises(DataError, match="MSCOCO"):
        read_coco(tmp_path / "captions.json")


@pytest.mark.parametrize("name", ["../secret.jpg", "a/b.jpg", "..", "a\\b.jpg", ""])
def test_names_that_lead_out_of_the_folder_are_refused(name):
    content = {"images": [{"id": 1, "file_name": name}], "annotations": [{"image_id": 1, "caption": "c"}]}
    with pytest.raises(DataError, match="file name"):
        parse_coco(content)


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"images": []},
        {"images": [], "annotations": []},
        {"images": [{"id": "x", "file_name": "a"}], "annotations": []},
        {"images": [], "annotations": [{"image_id": 1, "caption": "c"}]},
        {
            "images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}],
            "annotations": [{"image_id": 1, "caption": "c"}],
        },
    ],
)
def test_files_that_are_no_annotations_are_refused(content):
    with pytest.raises(DataError):
        parse_coco(content)


@pytest.mark.parametrize("text", ["", "\n", KAGGLE + "c.jpg| x| no number\n", "a.jpg\tno number\n"])
def test_rows_that_are_no_captions_are_refused(text):
    with pytest.raises(DataError):
        parse_flickr(text)


def test_reading_captions_needs_no_torch():
    code = "import sys, subnetbench.datasets.parts.captions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
