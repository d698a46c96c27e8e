"""One's own images with texts: every form of file says the same, and faults are named."""

import json

import pytest

from subnetbench.datasets.image_text_file import ImageTextFile
from subnetbench.harness.core.errors import DataError, UserError

# Captions with what formats must keep: commas, quotes, a line of its own, a sign at which Python's splitlines cuts.
ROWS = [
    ("a/1.jpg", 'a "red", round ball', "train"),
    ("a/1.jpg", "two\nlines", "train"),
    ("b/2.png", "one\u2028two", "val"),
    ("c/3.jpg", "a dog", "test"),
    ("c/4.jpg", "a dog", "test"),
    ("a/1.jpg", "a ball again", "train"),
]
OF_IMAGE = {"train": [('a "red", round ball', "two\nlines", "a ball again")], "test": [("a dog",), ("a dog",)]}


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def as_table(rows, delimiter):
    lines = [delimiter.join(map(quoted, row)) for row in [("image", "caption", "split"), *rows]]
    return "\ufeff" + "\r\n".join(lines) + "\r\n"


def as_objects(rows):
    return [dict(zip(("image", "caption", "split"), row, strict=True)) for row in rows]


def as_lists(rows):
    found: dict[str, dict] = {}
    for image, caption, split in rows:
        found.setdefault(image, {"image": image, "caption": [], "split": split})["caption"].append(caption)
    return list(found.values())


FORMS = {
    "captions.csv": lambda rows: as_table(rows, ","),
    "captions.tsv": lambda rows: as_table(rows, "\t"),
    "captions.jsonl": lambda rows: "\n".join(json.dumps(each, ensure_ascii=False) for each in as_objects(rows)),
    "lists.jsonl": lambda rows: "\n".join(json.dumps(each) for each in as_lists(rows)) + "\n\n",
    "captions.json": lambda rows: json.dumps(as_objects(rows)),
}


@pytest.fixture
def load_own(tmp_path, write_images):
    base = tmp_path / "own_images"
    write_images(base, *dict.fromkeys(row[0] for row in ROWS))

    def load(file: str, content: str, **options):
        (base / file).write_bytes(content.encode())
        return ImageTextFile(ImageTextFile.Config.parse({"file": file, **options}), tmp_path).load("text_image")

    return load


@pytest.mark.parametrize("file", FORMS)
def test_every_form_of_file_says_the_same(load_own, file):
    data = load_own(file, FORMS[file](ROWS))
    assert [path.name for path in data.test.images.paths] == ["3.jpg", "4.jpg"]
    assert list(data.train.captions) == OF_IMAGE["train"]
    assert list(data.test.captions) == OF_IMAGE["test"]
    assert data.validation.captions == (("one\u2028two",),)
    assert data.test.caption_protocol == "merged_captions"
    assert data.digest == load_own("captions.json", FORMS["captions.json"](ROWS)).digest


def test_equal_captions_may_stay_apart(load_own):
    together, apart = (load_own("c.csv", FORMS["captions.csv"](ROWS), equal_captions=each) for each in (True, False))
    assert apart.test.caption_protocol == "all_captions"
    assert apart.digest != together.digest


def test_other_names_of_columns(load_own):
    content = "file,text,part\na/1.jpg,a ball,train\nb/2.png,a cat,train\nc/3.jpg,a dog,test\n"
    data = load_own("c.csv", content, image_column="file", caption_column="text", split_column="part")
    # without a validation split one is drawn from training
    assert [len(split) for split in (data.train, data.validation, data.test)] == [1, 1, 1]


def test_splits_are_drawn_where_the_file_has_none(load_own):
    content = FORMS["captions.jsonl"](ROWS).replace(', "split": "', ', "other": "')
    drawn, searched = load_own("c.jsonl", content, test_fraction=0.5), load_own("c.jsonl", content, training=False)
    assert [len(split) for split in (drawn.train, drawn.validation, drawn.test)] == [1, 1, 2]
    assert [len(split) for split in (searched.train, searched.validation, searched.test)] == [0, 0, 4]
    assert drawn.protocol != searched.protocol
    with pytest.raises(UserError, match=r"data\.validation_fraction"):
        load_own("c.jsonl", content, test_fraction=0.75)


def test_an_image_without_captions_is_searched_among(load_own):
    rows = as_lists(ROWS)
    rows[-1]["caption"] = []
    assert load_own("c.json", json.dumps(rows)).test.captions == (("a dog",), ())


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        ("c.txt", "a/1.jpg a ball", "ends in none of"),
        ("c.csv", "image,text\na/1.jpg,a ball\n", "no column caption"),
        ("c.csv", "image,caption\na/1.jpg,a ball,train\n", "row 1 has another number of fields"),
        ("c.csv", "image,caption\na/1.jpg\n", "row 1 has another number of fields"),
        ("c.csv", 'image,caption\na/1.jpg,"a ball\n', "damaged"),
        ("c.csv", "image,caption\na/1.jpg, \n", "row 1: a caption of a/1.jpg is empty"),
        ("c.csv", "image,caption\n", "names no images"),
        (
            "c.csv",
            "image,caption,split\na/1.jpg,a ball,train\na/1.jpg,it,test\n",
            "row 2: a/1.jpg is in the split 'test'",
        ),
        ("c.csv", "image,caption,split\na/1.jpg,a ball,train\nc/3.jpg,it,\n", "none for c/3.jpg"),
        ("c.csv", "image,caption,split\na/1.jpg,a ball,holdout\n", "a split 'holdout'"),
        ("c.csv", "image,caption,split\na/1.jpg,a ball,train\n", "no images of the split test"),
        ("c.csv", "image,caption\n../secret.jpg,a ball\n", "outside"),
        ("c.csv", "image,caption\na/9.jpg,a ball\n", "1 of 1 images are missing"),
        ("c.jsonl", '{"image": "a/1.jpg", "caption": 3}', "row 1: 'caption' is missing or no text"),
        ("c.jsonl", '{"image": "a/1.jpg", "caption": ["a", 3]}', "a caption of a/1.jpg is empty or no text"),
        ("c.jsonl", '{"image": "a/1.jpg", "image": "b/2.png", "caption": "a"}', "line 1: a key is there twice"),
        ("c.jsonl", "[1]", "line 1 is no object"),
        ("c.json", '{"image": "a/1.jpg"}', "should hold a list"),
    ],
)
def test_files_that_are_wrong(load_own, file, content, fault):
    with pytest.raises(DataError, match=fault):
        load_own(file, content, training=False)
