"""VOC and SBD from a web server: hash, resuming, unpacking; tiny archives of the same layout."""

import hashlib
import io
import os
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from napari_deepcrf.data.published import PUBLISHED, obtain
from napari_deepcrf.data.voc import VOCDataset


def png(labels):
    stream = io.BytesIO()
    Image.fromarray(labels).save(stream, format="PNG")
    return stream.getvalue()


def jpeg():
    stream = io.BytesIO()
    Image.fromarray(np.full((21, 33, 3), 90, np.uint8)).save(stream, format="JPEG")
    return stream.getvalue()


def mat(labels):
    stream = io.BytesIO()
    savemat(stream, {"GTcls": {"Segmentation": labels}})
    return stream.getvalue()


def tar(files, mode):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


LABELS = np.full((21, 33), 8, np.uint8)


def voc_files():
    lists = {"train": "a\n", "val": "b\n", "trainval": "a\nb\n"}
    voc = "VOCdevkit/VOC2012"
    return {
        **{f"{voc}/ImageSets/Segmentation/{k}.txt": v.encode() for k, v in lists.items()},
        **{f"{voc}/SegmentationClass/{name}.png": png(LABELS) for name in "ab"},
        **{f"{voc}/JPEGImages/{name}.jpg": jpeg() for name in "abc"},
    }


def sbd_files():
    sbd = "benchmark_RELEASE/dataset"
    return {
        f"{sbd}/train.txt": b"c\na\n",
        f"{sbd}/val.txt": b"b\n",
        **{f"{sbd}/cls/{name}.mat": mat(LABELS) for name in "abc"},
    }


def publish(site, name, files, mode="w"):
    content = tar(files, mode)
    file = PUBLISHED[name].url.rsplit("/", 1)[-1]
    site.files[file] = content
    digest = f"md5:{hashlib.md5(content).hexdigest()}"
    return replace(PUBLISHED[name], url=site.root + file, digest=digest)


def test_both_datasets_are_unpacked_and_read_together(site, tmp_path):
    voc = publish(site, "voc2012", voc_files())
    sbd = publish(site, "sbd", sbd_files(), "w:gz")
    assert obtain(voc, tmp_path) == tmp_path / "VOCdevkit/VOC2012"
    assert VOCDataset(tmp_path, "trainval").names == ("a", "b")
    assert obtain(sbd, tmp_path) == tmp_path / "benchmark_RELEASE/dataset"
    augmented = VOCDataset(tmp_path, "train_aug")
    assert augmented.names == ("a", "c")
    assert (augmented[1].labels == LABELS).all()
    obtain(voc, tmp_path)
    assert len(site.ranges) == 2  # nothing is asked for twice


def test_a_download_that_broke_off_goes_on(site, tmp_path):
    voc = publish(site, "voc2012", {**voc_files(), "VOCdevkit/readme": bytes(300_000)})
    site.cut_after = 200_000
    with pytest.raises(ConnectionError, match="broke off"):
        obtain(voc, tmp_path)
    assert not (tmp_path / "VOCdevkit").exists()
    arrived = (tmp_path / "VOCtrainval_11-May-2012.tar.part").stat().st_size
    assert 100_000 < arrived <= 200_000
    obtain(voc, tmp_path)
    assert site.ranges == [None, f"bytes={arrived}-"]
    assert len(VOCDataset(tmp_path, "train")) == 1
    assert not list(tmp_path.glob("*.part"))


def test_a_part_that_was_whole_is_not_downloaded_again(site, tmp_path):
    voc = publish(site, "voc2012", voc_files())
    part = tmp_path / "VOCtrainval_11-May-2012.tar.part"
    part.write_bytes(site.files["VOCtrainval_11-May-2012.tar"])
    assert obtain(voc, tmp_path).is_dir()


def test_another_content_is_refused_and_not_kept(site, tmp_path):
    voc = replace(publish(site, "voc2012", voc_files()), digest=PUBLISHED["voc2012"].digest)
    with pytest.raises(ValueError, match=r"expected md5 6cd6e144.*, got another file"):
        obtain(voc, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".VOCtrainval_11-May-2012.tar.lock"]


def test_without_a_network_a_local_archive_does(tmp_path):
    content = tar(voc_files(), "w")
    local = replace(
        PUBLISHED["voc2012"],
        url="http://127.0.0.1:9/voc.tar",
        digest=f"md5:{hashlib.md5(content).hexdigest()}",
    )
    with pytest.raises(ConnectionError, match=r"put the file at .*voc\.tar"):
        obtain(local, tmp_path)
    (tmp_path / "voc.tar").write_bytes(content)
    assert obtain(local, tmp_path).is_dir()


@pytest.mark.parametrize(
    "name", ["../escaped.txt", "/tmp/escaped.txt", "VOCdevkit/VOC2012/../../../escaped.txt"]
)
def test_no_member_leaves_the_folder(site, tmp_path, name):
    voc = publish(site, "voc2012", {**voc_files(), name: b"out"})
    inside = tmp_path / "inside"
    with pytest.raises(ValueError, match="would lie outside the dataset's folder"):
        obtain(voc, inside)
    assert not list(tmp_path.rglob("escaped.txt"))
    assert not (inside / "VOCdevkit/VOC2012").exists()


def test_links_are_left_out(site, tmp_path):
    stream = io.BytesIO(tar(voc_files(), "w"))
    with tarfile.open(fileobj=stream, mode="a") as archive:
        link = tarfile.TarInfo("VOCdevkit/VOC2012/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    content = stream.getvalue()
    site.files["voc.tar"] = content
    digest = f"md5:{hashlib.md5(content).hexdigest()}"
    target = obtain(
        replace(PUBLISHED["voc2012"], url=site.root + "voc.tar", digest=digest), tmp_path
    )
    assert not (target / "link").is_symlink()


def test_a_damaged_archive_leaves_nothing_behind(site, tmp_path):
    whole = tar(sbd_files(), "w:gz")
    content = whole[: len(whole) // 2]
    site.files["sbd.tgz"] = content
    digest = f"md5:{hashlib.md5(content).hexdigest()}"
    broken = replace(PUBLISHED["sbd"], url=site.root + "sbd.tgz", digest=digest)
    with pytest.raises(ValueError, match=r"sbd\.tgz: cannot be unpacked"):
        obtain(broken, tmp_path)
    assert [path.name for path in (tmp_path / "benchmark_RELEASE").iterdir()] == []


def test_an_archive_of_something_else_is_named(tmp_path):
    content = tar({"readme.txt": b"hello"}, "w")
    (tmp_path / "other.tar").write_bytes(content)
    digest = f"md5:{hashlib.md5(content).hexdigest()}"
    other = replace(PUBLISHED["sbd"], url="http://127.0.0.1:9/other.tar", digest=digest)
    with pytest.raises(
        ValueError, match=r"expected a folder benchmark_RELEASE/dataset, found none"
    ):
        obtain(other, tmp_path)


def test_another_process_may_be_quicker(site, tmp_path, monkeypatch):
    voc = publish(site, "voc2012", voc_files())

    def quicker(source, target):
        if str(target).endswith("VOC2012"):
            target.mkdir()
            (target / "theirs").touch()
        os.rename(source, target)

    monkeypatch.setattr("napari_deepcrf.data.published.os.replace", quicker)
    assert (obtain(voc, tmp_path) / "theirs").exists()
    assert [path.name for path in (tmp_path / "VOCdevkit").iterdir()] == ["VOC2012"]


def test_a_folder_that_cannot_take_its_name_is_told(site, tmp_path, monkeypatch):
    voc = publish(site, "voc2012", voc_files())

    def refuse(source, target):
        if str(target).endswith("VOC2012"):
            raise PermissionError("no")
        os.rename(source, target)

    monkeypatch.setattr("napari_deepcrf.data.published.os.replace", refuse)
    with pytest.raises(OSError, match="no"):
        obtain(voc, tmp_path)
    assert not (tmp_path / "VOCdevkit/VOC2012").exists()
