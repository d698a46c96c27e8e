"""Google Landmarks, ROxford5k and RParis6k: layouts, ground truth, and the three settings against a plain re-statement."""

import csv
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from subnetbench.datasets.landmarks import Landmarks
from subnetbench.datasets.parts.annotations import csv_columns
from subnetbench.datasets.roxford5k import ROxford5k
from subnetbench.datasets.rparis6k import RParis6k
from subnetbench.harness.api.trained import evaluate
from subnetbench.harness.core.errors import DataError
from subnetbench.harness.evaluation.pixels import found_by, found_by_colours
from subnetbench.harness.evaluation.relevance import Relevance
from subnetbench.harness.evaluation.retrieval import split_metrics
from subnetbench.harness.execution.run import execute, load_data
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.testing.conformance import _check_data
from subnetbench.harness.testing.short_runs import short_spec

GALLERY = [f"all_souls_{number:06d}" for number in range(12)]
QUERIES = ["all_souls_q1", "radcliffe_q2", "hertford_q3"]
LISTS = [
    {"easy": [0, 3], "hard": [5, 7, 8], "junk": [1]},
    {"easy": [], "hard": [2], "junk": [4, 6]},
    {"easy": [9], "hard": [], "junk": []},
]
BOXES = [[1.2, 2.0, 9.7, 10.0], [0.0, 0.0, 5.0, 6.0], [2.0, 3.0, 13.0, 12.0]]


def ground_truth() -> dict:
    entries = [{**lists, "bbx": box} for lists, box in zip(LISTS, BOXES, strict=True)]
    return {"imlist": GALLERY, "qimlist": QUERIES, "gnd": entries}


@pytest.fixture
def oxford(tmp_path, write_images, monkeypatch) -> Path:
    base = tmp_path / "roxford5k"
    write_images(base / "jpg", *(f"{name}.jpg" for name in [*GALLERY, *QUERIES]))
    (base / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(ground_truth(), protocol=2))
    monkeypatch.setattr(ROxford5k, "counts", {"queries": 3, "gallery images": 12})
    return base


def average_precision(ranks: np.ndarray) -> float:
    """By trapezoids, from the 0-based ranks of the positives."""
    total = 0.0
    for found, rank in enumerate(ranks):
        before = 1.0 if rank == 0 else found / rank
        total += (before + (found + 1) / (rank + 1)) / 2
    return total / len(ranks)


def figures_of(order: np.ndarray, wanted: list[np.ndarray], junk: list[np.ndarray], ks=(1, 5, 10)) -> dict[str, float]:
    """The published evaluation, said again: order (gallery, queries), best first."""
    precisions, at_k = [], []
    for query, good in enumerate(wanted):
        if len(good) == 0:
            continue
        kept = [item for item in order[:, query] if item not in set(junk[query].tolist())]
        ranks = np.array([position for position, item in enumerate(kept) if item in set(good.tolist())])
        precisions.append(average_precision(ranks))
        cuts = [min(ranks.max() + 1, k) for k in ks]
        at_k.append([(ranks < cut).sum() / cut for cut in cuts])
    return {
        "map_trapezoid": np.mean(precisions),
        **{f"precision_oxford_at_{k}": value for k, value in zip(ks, np.mean(at_k, axis=0), strict=True)},
    }


def test_all_settings_agree_with_the_published_evaluation(oxford, load):
    test = load(ROxford5k).test
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        query, gallery = torch.randn(3, 6, generator=generator), torch.randn(12, 6, generator=generator)
        found = split_metrics(query, gallery, test)
        scores = torch.nn.functional.normalize(gallery) @ torch.nn.functional.normalize(query).T
        order = scores.argsort(dim=0, descending=True).numpy()
        lists = {part: [np.array(entry[part], int) for entry in LISTS] for part in ("easy", "hard", "junk")}
        settings = {
            "easy_": (["easy"], ["junk", "hard"]),
            "": (["easy", "hard"], ["junk"]),
            "hard_": (["hard"], ["junk", "easy"]),
        }
        for prefix, (good, junk) in settings.items():
            wanted, ignored = (
                [np.concatenate([lists[part][i] for part in parts]) for i in range(3)] for parts in (good, junk)
            )
            # With 12 images and up to 4 out, precision at 10 is that at the last positive or at 10.
            for name, value in figures_of(order, wanted, ignored).items():
                assert found[prefix + name] == pytest.approx(value, abs=1e-12), prefix + name
        assert (found["easy_queries"], found["queries"], found["hard_queries"]) == (2, 3, 2)
        assert found["easy_queries_without_positives"] == 1


def test_queries_are_cut_to_their_boxes_or_not(oxford, load):
    cut, whole = load(ROxford5k), load(ROxford5k, boxes=False)
    assert [tuple(image.shape) for image in cut.test.images.read(np.arange(3))] == [(3, 8, 9), (3, 6, 5), (3, 9, 11)]
    with Image.open(oxford / "jpg" / f"{QUERIES[0]}.jpg") as image:
        pixels = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(whole.test.images.read(np.array([0]))[0].permute(1, 2, 0), pixels)
    np.testing.assert_array_equal(cut.test.images.read(np.array([0]))[0].permute(1, 2, 0), pixels[2:10, 1:10])
    subset = cut.test.subset(np.array([2, 0]))
    assert [tuple(image.shape) for image in subset.images.read(np.arange(2))] == [(3, 9, 11), (3, 8, 9)]
    assert Relevance.settings(subset)[""].counts.tolist() == [1, 5]
    assert cut.digest != whole.digest
    baselines = found_by(cut) | found_by_colours(cut)
    assert all("easy_map_trapezoid" in values for values in baselines.values())


def test_ground_truth_beside_the_folder_and_in_arrays(tmp_path, write_images, load, monkeypatch):
    """As converted from MATLAB: NumPy arrays in the pickle, in either layout of memory."""
    base = tmp_path / "rparis6k"
    write_images(base / "jpg", *(f"{name}.jpg" for name in [*GALLERY, *QUERIES]))
    truth = ground_truth()
    for entry in truth["gnd"]:
        entry["bbx"] = np.array(entry["bbx"], ">f4")
        entry["easy"] = np.array([entry["easy"]], np.uint16, order="F")
        entry["junk"] = np.array(entry["junk"], np.int32)
    monkeypatch.setattr(RParis6k, "counts", {"queries": 3, "gallery images": 12})
    for protocol in (0, 2, 4):
        (tmp_path / "gnd_rparis6k.pkl").write_bytes(pickle.dumps(truth, protocol=protocol))
        test = load(RParis6k).test
        assert [each.tolist() for each in test.ground_truth["easy_"].positives] == [entry["easy"] for entry in LISTS]
        assert test.images.boxes.tolist() == [[1, 2, 10, 10], [0, 0, 5, 6], [2, 3, 13, 12]]


def test_a_part_of_the_gallery_keeps_its_ground_truth(oxford, load):
    for number in (0, 4, 5):
        (oxford / "jpg" / f"{GALLERY[number]}.jpg").unlink()
    (oxford / "jpg" / f"{QUERIES[1]}.jpg").unlink()
    with pytest.raises(DataError, match="3 of 12 images are missing"):
        load(ROxford5k)
    test = load(ROxford5k, partial=True).test
    names = [path.stem for path in test.gallery.images.paths]
    assert (len(test), len(names)) == (2, 9)
    easy, junk = (
        [[names[item] for item in items] for items in part]
        for part in (test.ground_truth["easy_"].positives, test.ground_truth[""].ignored)
    )
    assert easy == [[GALLERY[3]], [GALLERY[9]]]
    assert junk == [[GALLERY[1]], []]


@pytest.mark.parametrize(
    "damage",
    [
        lambda truth: truth.pop("imlist"),
        lambda truth: truth["gnd"].pop(),
        lambda truth: truth["gnd"][0].pop("junk"),
        lambda truth: truth["gnd"][0].update(easy=[12]),
        lambda truth: truth["gnd"][0].update(easy=["a"]),
        lambda truth: truth["gnd"][0].update(bbx=[5, 5, 2, 9]),
        lambda truth: truth["gnd"][0].update(bbx=[0, 0, float("nan"), 9]),
        lambda truth: truth["imlist"].__setitem__(0, "../../secret"),
        lambda truth: truth.update(qimlist=3),
    ],
)
def test_ground_truth_that_is_wrong(oxford, load, damage):
    truth = {**ground_truth(), "imlist": [*GALLERY]}
    damage(truth)
    (oxford / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth))
    with pytest.raises(DataError):
        load(ROxford5k, partial=True)


def test_it_is_for_evaluation_only(oxford, load, tmp_path):
    data = load(ROxford5k)
    _check_data(data)
    spec = resolve("hgsl", "roxford5k")
    with pytest.raises(DataError, match=r"no training images.*subnetbench evaluate"):
        load_data(spec, tmp_path)


TRAIN = {"17": ["00a1b2c3", "00a9ffff", "1b2c3d4e"], "9": ["2c3d4e5f"], "203": ["3d4e5f60", "4e5f6071"]}
INDEX = ["5f607182", "60718293", "718293a4", "8293a4b5"]
SOLUTION = [("93a4b5c6", "60718293 8293a4b5", "Private"), ("a4b5c6d7", "5f607182", "Public")]
SOLUTION += [("b5c6d7e8", "None", "Ignored"), ("c6d7e8f9", "718293a4", "Private")]


def file_of(part: str, image: str) -> str:
    return f"{part}/{image[0]}/{image[1]}/{image[2]}/{image}.jpg"


@pytest.fixture
def landmarks(tmp_path, write_images, monkeypatch) -> Path:
    base = tmp_path / "google-landmark"
    write_images(base, *(file_of("train", image) for images in TRAIN.values() for image in images))
    write_images(base, *(file_of("index", image) for image in INDEX))
    write_images(base, *(file_of("test", image) for image, _, used in SOLUTION if used != "Ignored"))
    clean = "".join(f"{landmark},{' '.join(images)}\n" for landmark, images in TRAIN.items())
    (base / "train" / "train_clean.csv").write_text("landmark_id,images\n" + clean)
    full = "".join(f'{image},"http://a/b,c.jpg",{key}\n' for key, images in TRAIN.items() for image in images)
    (base / "train" / "train.csv").write_text("id,url,landmark_id\n" + full)
    (base / "index" / "index.csv").write_text("id\n" + "\n".join(INDEX) + "\n")
    rows = "".join(",".join(row) + "\n" for row in SOLUTION)
    (base / "test" / "retrieval_solution_v2.1.csv").write_text("id,images,Usage\n" + rows)
    monkeypatch.setattr(Landmarks, "counts", {"train classes": 3, "train images": 6, "gallery images": 4})
    monkeypatch.setattr(Landmarks, "queries", {"private": 2, "public": 1})
    return base


def test_landmarks(landmarks, load, listed):
    data = load(Landmarks)
    assert data.train.classes == ("17", "9")
    assert data.validation.classes == ("203",)
    expected = [
        (f"google-landmark/{file_of('train', image)}", key) for key, images in TRAIN.items() for image in images
    ]
    assert listed(data.train, data.validation) == expected
    assert [path.stem for path in data.test.images.paths] == ["93a4b5c6", "c6d7e8f9"]
    assert [path.stem for path in data.test.gallery.images.paths] == INDEX
    assert [each.tolist() for each in data.test.ground_truth[""].positives] == [[1, 3], [2]]
    assert data.test.metrics == ("recall_at_1", "map_at_100")
    public = load(Landmarks, usage="public")
    assert [each.tolist() for each in public.test.ground_truth[""].positives] == [[0]]
    assert public.digest != data.digest


def test_a_landmark_of_very_many_images(tmp_path):
    before = csv.field_size_limit()
    images = " ".join(f"{number:016x}" for number in range(20_000))
    (tmp_path / "train_clean.csv").write_text(f"landmark_id,images\n7,{images}\n")
    assert csv_columns(tmp_path / "train_clean.csv", ("images", "landmark_id")) == [[images, "7"]]
    assert csv.field_size_limit() == before
    for content in ("landmark_id\n7\n", "landmark_id,images\n7\n", ""):
        (tmp_path / "train_clean.csv").write_text(content)
        with pytest.raises(DataError, match=r"no column images|too few columns"):
            csv_columns(tmp_path / "train_clean.csv", ("images", "landmark_id"))


def test_landmark_training_lists(landmarks, load, listed):
    clean = load(Landmarks)
    full = load(Landmarks, train_list="train/train.csv")
    assert listed(full.train, full.validation) == listed(clean.train, clean.validation)
    lines = [f"{file_of('train', image)} {number}" for number, key in enumerate(("9", "203")) for image in TRAIN[key]]
    (landmarks / "gldv2_train_30percent.txt").write_text("\n".join(lines))
    own = load(Landmarks, train_list="gldv2_train_30percent.txt")
    assert (own.train.classes, own.validation.classes) == (("0",), ("1",))
    folders = load(Landmarks, train_list="train")
    assert folders.train.classes == ("0", "1", "2", "3")


def test_landmark_lists_of_the_prunnet_code(landmarks, load):
    official = load(Landmarks)
    gallery = "".join(f"{file_of('index', image)} {number}\n" for number, image in enumerate(INDEX))
    (landmarks / "gldv2_gallery_list.txt").write_text(gallery)
    private = [(image, wanted.split()) for image, wanted, used in SOLUTION if used == "Private"]
    truth = "".join(
        f"{file_of('test', image)} {number} {','.join(str(INDEX.index(name)) for name in wanted)}\n"
        for number, (image, wanted) in enumerate(private)
    )
    (landmarks / "gldv2_private_query_gt.txt").write_text(truth)
    (landmarks / "test" / "retrieval_solution_v2.1.csv").unlink()
    assert load(Landmarks).digest == official.digest


def test_landmarks_that_are_missing_or_wrong(landmarks, load):
    (landmarks / file_of("index", INDEX[1])).unlink()
    with pytest.raises(DataError, match="1 of 4 images are missing"):
        load(Landmarks)
    part = load(Landmarks, partial=True)
    assert [each.tolist() for each in part.test.ground_truth[""].positives] == [[2], [1]]
    (landmarks / "test" / "retrieval_solution_v2.1.csv").write_text("id,images,Usage\n93a4b5c6,ffffffff,Private\n")
    with pytest.raises(DataError, match="ffffffff"):
        load(Landmarks, partial=True)
    (landmarks / "test" / "retrieval_solution_v2.1.csv").write_text("id,images\n93a4b5c6,ffffffff\n")
    with pytest.raises(DataError, match="no column Usage"):
        load(Landmarks, partial=True)


def test_training_on_landmarks_for_oxford(landmarks, oxford, load):
    data = load(Landmarks, test="roxford5k")
    assert len(data.train) == 4
    assert set(data.test.ground_truth) == {"", "easy_", "hard_"}
    assert "map_trapezoid" in data.test.metrics
    assert load(Landmarks, test="roxford5k", boxes=False).digest != data.digest


@pytest.mark.slow
def test_a_run_that_was_trained_elsewhere_is_scored_in_all_settings(oxford, tmp_path):
    spec = short_spec("triplet")
    assert execute(spec, tmp_path / "results", RunSettings(trackers=())) == "finished"
    model = RunFolder(tmp_path / "results", spec.run_id).model_file
    scores = evaluate(model, dataset="roxford5k", data_root=tmp_path, device="cpu").scores
    found = {score.metric: score.value for score in scores if score.variant == "dense"}
    for prefix in ("", "easy_", "hard_"):
        assert 0 < found[f"{prefix}map_trapezoid"] <= 1
        assert found[f"{prefix}queries"] == {"": 3, "easy_": 2, "hard_": 2}[prefix]
