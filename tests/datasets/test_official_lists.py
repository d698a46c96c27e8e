"""Retrieval sets with official lists (SOP, In-shop, VeRi-776) in small trees of the published layouts."""

import numpy as np
import pytest
from pytorch_metric_learning import datasets as library

from subnetbench.datasets.inshop import Inshop
from subnetbench.datasets.sop import Sop
from subnetbench.datasets.veri776 import Veri776
from subnetbench.harness.core.errors import DataError
from subnetbench.harness.evaluation.relevance import Relevance

HEADER = "image_id class_id super_class_id path\n"


@pytest.fixture
def sop(tmp_path, write_images, counted):
    base = tmp_path / "Stanford_Online_Products"
    rows = {
        "train": [
            (1, 1, 1, "bicycle_final/a_0.JPG"),
            (2, 1, 1, "bicycle_final/a_1.JPG"),
            (3, 9, 1, "sofa_final/b_0.JPG"),
        ],
        "test": [
            (4, 11319, 1, "lamp_final/c_0.JPG"),
            (5, 11319, 1, "lamp_final/c_1.JPG"),
            (6, 11320, 2, "fan_final/d_0.JPG"),
        ],
    }
    for part, lines in rows.items():
        write_images(base, *(line[-1] for line in lines))
        text = "".join(" ".join(map(str, line)) + "\n" for line in lines)
        (base / f"Ebay_{part}.txt").write_text(HEADER + text)
    counted(Sop, train_images=3, test_images=3, train_classes=2, test_classes=2)
    return base


def test_sop(sop, tmp_path, load, listed, of_library):
    data = load(Sop)
    train, test = (library.StanfordOnlineProducts(str(tmp_path), split=split) for split in ("train", "test"))
    assert of_library(train) == [(path, int(name)) for path, name in listed(data.train, data.validation)]
    assert of_library(test) == [(path, int(name)) for path, name in listed(data.test)]
    assert data.test.metrics[:4] == ("recall_at_1", "recall_at_10", "recall_at_100", "recall_at_1000")


def test_sop_with_own_queries_and_gallery(sop, load, listed):
    (sop / "Ebay_query.txt").write_text(HEADER + "1 11320 2 fan_final/d_0.JPG\n2 11319 1 lamp_final/c_0.JPG\n")
    (sop / "Ebay_gallery.txt").write_text(HEADER + "3 11319 1 lamp_final/c_1.JPG\n4 5 1 bicycle_final/a_0.JPG\n")
    data = load(Sop, test_list="Ebay_query.txt", gallery_list="Ebay_gallery.txt")
    assert data.test.classes == data.test.gallery.classes == ("11320", "11319", "5")
    assert data.test.labels.tolist() == [0, 1]
    assert data.test.gallery.labels.tolist() == [1, 2]
    assert Relevance.settings(data.test)[""].counts.tolist() == [0, 1]
    assert load(Sop).digest != data.digest
    (sop / "Ebay_gallery.txt").write_text(HEADER + "3 11319 1 lamp_final/c_1.JPG\n")
    other = load(Sop, test_list="Ebay_query.txt", gallery_list="Ebay_gallery.txt")
    assert other.digest != data.digest  # the gallery is part of it


INSHOP = [
    ("img/WOMEN/Dresses/id_00000002/02_1_front.jpg", "id_00000002", "train"),
    ("img/WOMEN/Dresses/id_00000002/02_3_back.jpg", "id_00000002", "train"),
    ("img/MEN/Denim/id_00000080/01_1_front.jpg", "id_00000080", "train"),
    ("img/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg", "id_00000001", "query"),
    ("img/WOMEN/Blouses_Shirts/id_00000001/02_2_side.jpg", "id_00000001", "gallery"),
    ("img/WOMEN/Skirts/id_00000007/01_1_front.jpg", "id_00000007", "gallery"),
    ("img/WOMEN/Skirts/id_00000007/01_2_side.jpg", "id_00000007", "query"),
]


@pytest.mark.parametrize(("eval_folder", "image_folder"), [("", ""), ("Eval", "Img")])
def test_inshop(eval_folder, image_folder, tmp_path, write_images, load, listed, counted):
    base = tmp_path / "inshop"
    write_images(base / image_folder, *(name for name, _, _ in INSHOP))
    (base / eval_folder).mkdir(exist_ok=True)
    lines = "".join(f"{name:<70} {item}   {part}\n" for name, item, part in INSHOP)
    partition = base / eval_folder / "list_eval_partition.txt"
    partition.write_text(f"{len(INSHOP)}\nimage_name item_id evaluation_status\n{lines}")
    counted(Inshop, train_classes=2, train_images=3, test_classes=2, queries=2, gallery_images=2)
    data = load(Inshop)
    prefix = "/".join(filter(None, ("inshop", image_folder)))
    for split, part in ((data.test, "query"), (data.test.gallery, "gallery")):
        assert listed(split) == [(f"{prefix}/{name}", item) for name, item, given in INSHOP if given == part]
    assert data.train.classes == ("id_00000002",)
    assert data.validation.classes == ("id_00000080",)
    assert Relevance.settings(data.test)[""].positives(np.arange(2)).tolist() == [[0], [1]]
    partition.write_text(partition.read_text() + "img/a.jpg id_9 holdout\n")
    with pytest.raises(DataError, match="holdout"):
        load(Inshop)


def test_inshop_partition_of_another_name(tmp_path, write_images, load):
    base = tmp_path / "inshop"
    write_images(base, *(name for name, _, _ in INSHOP))
    lines = "".join(f"{name} {item} {part}\n" for name, item, part in INSHOP)
    (base / "ordered_list_eval_partition_0.30.txt").write_text(f"7\nimage_name item_id evaluation_status\n{lines}")
    data = load(Inshop, partition="ordered_list_eval_partition_0.30.txt", partial=True)
    assert (len(data.test), len(data.test.gallery)) == (2, 2)


VERI_TRAIN = [("0001_c001_00016450_0.jpg", "0001", "c001"), ("0001_c002_00016460_0.jpg", "0001", "c002")]
VERI_TRAIN += [("0003_c009_00019640_0.jpg", "0003", "c009")]
VERI_TEST = [
    ("0002_c002_00030600_0.jpg", "0002", "c002"),
    ("0002_c002_00030605_1.jpg", "0002", "c002"),
    ("0002_c003_00084280_0.jpg", "0002", "c003"),
    ("0005_c003_00077635_0.jpg", "0005", "c003"),
    ("0005_c010_00078000_0.jpg", "0005", "c010"),
]


def veri_xml(rows):
    items = "".join(
        f'<Item imageName="{name}" vehicleID="{vehicle}" cameraID="{camera}" colorID="1" typeID="4" />\n'
        for name, vehicle, camera in rows
    )
    return (
        f'<?xml version="1.0" encoding="gb2312" ?>\n<TrainingImages Version="1.0"><!-- \u8f66 -->\n'
        f'<Items number="{len(rows)}">\n{items}</Items>\n</TrainingImages>\n'
    ).encode("gb2312")


@pytest.fixture
def veri(tmp_path, write_images, counted):
    base = tmp_path / "VeRi"
    write_images(base / "image_train", *(name for name, _, _ in VERI_TRAIN))
    write_images(base / "image_test", *(name for name, _, _ in VERI_TEST))
    write_images(base / "image_query", VERI_TEST[0][0], VERI_TEST[3][0], "0005_c011_00000001_0.jpg")
    (base / "train_label.xml").write_bytes(veri_xml(VERI_TRAIN))
    (base / "test_label.xml").write_bytes(veri_xml(VERI_TEST))
    counted(Veri776, train_classes=2, train_images=3, test_classes=2, queries=3, gallery_images=5)
    return base


def test_veri(veri, load, listed):
    data = load(Veri776)
    assert listed(data.train, data.validation) == [
        (f"VeRi/image_train/{name}", vehicle) for name, vehicle, _ in VERI_TRAIN
    ]
    assert listed(data.test.gallery) == [(f"VeRi/image_test/{name}", vehicle) for name, vehicle, _ in VERI_TEST]
    assert [name for _, name in listed(data.test)] == ["0002", "0005", "0005"]
    relevance = Relevance.settings(data.test)[""]
    # The first two are ignored for the first query: its own camera; the third query's camera is nowhere in the gallery.
    assert relevance.positives(np.arange(3)).tolist() == [[2, -1], [4, -1], [3, 4]]
    assert [each.tolist() for each in relevance.ignored] == [[0, 1], [3], []]


def test_veri_annotations_may_not_declare_entities(veri, load):
    bomb = b'<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;">]>\n<a><Item imageName="&z;"/></a>'
    (veri / "train_label.xml").write_bytes(bomb)
    with pytest.raises(DataError, match="entities"):
        load(Veri776)
    (veri / "train_label.xml").write_bytes(b"<a><Item imageName='1.jpg' vehicleID='1'/></a>")
    with pytest.raises(DataError, match="cameraID"):
        load(Veri776)
    (veri / "train_label.xml").write_bytes(b"<a><Item")
    with pytest.raises(DataError, match="damaged"):
        load(Veri776)
