"""A CRF for other tools' results, objects, batches, files and the readout."""

from __future__ import annotations

import inspect

import numpy as np
from npe2 import PluginManager
from PIL import Image

from napari_deepcrf.data.label_files import voc_palette, write_labels
from napari_deepcrf.plugin import commands, files, folders
from napari_deepcrf.plugin.palette import class_colour


def choose_source(app, name):
    box = app.dock.tools_panel.source
    box.setCurrentIndex(box.findText(name))
    box.activated.emit(box.currentIndex())


def test_another_tools_layers_are_refined(open_app, photo):
    app = open_app(photo)
    noisy = np.random.default_rng(0).random(photo.shape[:2]) * 0.4
    noisy[20:45, 25:60] += 0.6
    app.viewer.add_image(np.stack([1 - noisy, noisy]), name="forest")
    app.viewer.layers.selection.active = app.viewer.layers["photo"]
    result = app.after(lambda: choose_source(app, "forest"))
    assert result.class_names == ("background", "class 1")
    assert result.labels[30, 40] == 1
    assert (result.labels[:15] == 0).all()
    labels = np.zeros(photo.shape[:2], int)
    labels[22:43, 27:58] = 1
    app.viewer.add_labels(labels, name="mine")
    result = app.after(lambda: choose_source(app, "mine"))
    assert result.labels[30, 40] == 1
    app.viewer.layers["mine"].refresh()
    assert app.dock.session.fresh
    app.viewer.layers["mine"].paint((5, 5), 1)
    assert not app.dock.session.fresh  # other scores than those that were refined
    app.viewer.layers["mine"].undo()
    app.after(app.dock.source_panel.segment.click)
    app.viewer.add_labels(np.stack([labels] * 3), name="stack")
    assert app.dock.tools_panel.source.findText("stack") < 0  # scores are those of one plane
    app.viewer.layers.remove("mine")
    assert app.dock.session.scores is None
    assert not app.dock.session.fresh


def test_objects_have_a_table(open_app, photo, wait_until):
    app = open_app(photo, scale=(2, 3))
    labels = np.zeros(photo.shape[:2], int)
    labels[20:45, 25:60] = 1
    app.viewer.add_labels(labels, name="mine")
    app.after(lambda: choose_source(app, "mine"))
    app.dock.tools_panel.objects.click()
    wait_until(lambda: "photo [class 1 objects]" in app.viewer.layers)
    layer = app.viewer.layers["photo [class 1 objects]"]
    assert list(layer.features.columns) == [
        "index",
        "area",
        "mean_probability",
        "boundary_entropy",
    ]
    assert layer.features["area"].sum() == (layer.data > 0).sum()
    np.testing.assert_allclose(layer.scale, (2, 3))
    table = app.dock.tools_panel.table
    assert table.rowCount() == len(layer.features)
    assert table.item(0, 1).text() == str(layer.features["area"][0])
    for chosen in (table.cellClicked, table.cellActivated):
        layer.selected_label = 7
        chosen.emit(0, 0)
        assert layer.selected_label == 1
    rows, columns = np.nonzero(layer.data == 1)
    np.testing.assert_allclose(
        app.viewer.scene.camera.center[1:], (2 * rows.mean(), 3 * columns.mean()), rtol=1e-6
    )


def test_a_folder_is_segmented(open_app, photo, tmp_path):
    for name in ("a", "b"):
        Image.fromarray(photo).save(tmp_path / f"{name}.png")
    app = open_app()
    panel = app.dock.batch_panel
    assert not panel.run.isEnabled()
    panel.set_folders(str(tmp_path), str(tmp_path / "labels"))
    panel.run.click()
    app.idle()
    assert "2 label images written" in panel.folder_note.text()
    written = sorted((tmp_path / "labels").glob("*.png"))
    assert [path.name for path in written] == ["a.png", "b.png"]
    with Image.open(written[0]) as image:
        assert image.mode == "P"
        assert image.size == (83, 61)


def test_palette_images_are_read_and_written(make_napari_viewer, tmp_path):
    labels = np.random.default_rng(0).integers(0, 21, (17, 23), dtype=np.uint8)
    path = tmp_path / "truth.labels.png"
    write_labels(path, labels)
    viewer = make_napari_viewer()
    (layer,) = viewer.open(str(path), plugin="napari-deepcrf")
    np.testing.assert_array_equal(layer.data, labels)
    np.testing.assert_allclose(layer.get_color(8)[:3], np.array(class_colour("cat", 8)) / 255)
    out = tmp_path / "again.png"
    assert files.write_voc_labels(str(out), labels[None], {}) == [str(out)]
    with Image.open(out) as image:
        np.testing.assert_array_equal(np.asarray(image), labels)
        assert image.getpalette()[: 3 * 21] == voc_palette()[:21].ravel().tolist()
    assert files.label_reader(str(tmp_path / "photo.png")) is None


def test_photos_open_without_a_question_and_label_images_by_a_command(
    open_app, photo, tmp_path, monkeypatch
):
    labels = (photo[..., 0] > 90).astype(np.uint8)
    write_labels(tmp_path / "truth.png", labels)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    app = open_app()
    (image,) = app.viewer.open(tmp_path / "photo.png")  # raises where two readers would do
    np.testing.assert_array_equal(image.data, photo)
    chosen = [str(tmp_path / "truth.png")]
    monkeypatch.setattr(folders, "ask_labels", lambda _: chosen)
    execute = PluginManager.instance().commands.execute
    execute("napari-deepcrf.open_labels")
    layer = app.viewer.layers["truth"]
    np.testing.assert_array_equal(layer.data, labels)
    assert list(layer.features["class"])[:2] == ["background", "aeroplane"]
    chosen[:] = [str(tmp_path / "photo.png")]
    execute("napari-deepcrf.open_labels")
    assert "expected a palette or 8-bit grey PNG" in app.dock.status_panel.text.text()
    assert len(app.viewer.layers) == 2


def test_the_status_bar_tells_class_and_probability(open_app, photo):
    app = open_app(photo)
    result = app.segment()
    app.viewer.cursor.position = (0, 3, 30.2, 40.4)
    label = result.labels[30, 40]
    text = app.dock.readout.text()
    assert text == f"{result.class_names[label]} {result.marginals[label, -1, 30, 40]:.2f}"
    keys = ("layer_name", "layer_base", "source_type", "plugin")
    app.viewer.status = dict.fromkeys(keys, "") | {"coordinates": "[30 40]"}
    assert app.viewer.status["coordinates"].endswith(text)
    app.dock.segmenting.change({"iterations": 4})
    assert app.dock.readout.text().endswith("(out of date)")
    app.viewer.cursor.position = (0, 3, -5, 40)
    assert app.dock.readout.text() == ""


def test_strokes_of_the_sample_can_be_learned_from(open_app):
    app = open_app()
    image, strokes = app.viewer.open_sample("napari-deepcrf", "cat_with_scribbles")
    assert strokes.data.shape == image.data.shape[:2]
    assert set(np.unique(strokes.data)) == {0, 1, 2}
    app.dock.annotate_panel.layer_chosen.emit(strokes)
    assert app.dock.annotating.layer is strokes
    (pair,) = app.dock.annotating.pairing.open_pairs()()
    np.testing.assert_array_equal(pair.annotation, strokes.data)


def test_every_command_of_the_manifest_runs(open_app, photo, monkeypatch):
    asked = []
    monkeypatch.setattr(folders, "ask_model", lambda _: asked.append("model") or "")
    monkeypatch.setattr(folders, "ask_where_to_save_model", lambda _: asked.append("save") or "")
    monkeypatch.setattr(folders, "ask_labels", lambda _: asked.append("labels") or [])
    app, manager = open_app(photo), PluginManager.instance()
    manifest = manager.get_manifest("napari-deepcrf").contributions
    prefix = f"{commands.__name__}:"
    ours = {
        c.python_name.removeprefix(prefix): c.id
        for c in manifest.commands
        if c.python_name.startswith(prefix)
    }
    defined = {n for n, f in vars(commands).items() if inspect.isfunction(f)} - {"open_dock"}
    assert set(ours) == defined
    in_menus = [item.command for items in manifest.menus.values() for item in items]
    assert sorted(in_menus) == sorted(ours.values())
    said, tabs = {}, {}
    for name in sorted(ours, key=lambda name: name != "segment"):  # others want a result
        app.dock.status_panel.show_idle("Ready")
        manager.commands.execute(ours[name])
        app.idle()
        said[name] = app.dock.status_panel.text.text()
        tabs[name] = app.dock.tabs.tabText(app.dock.tabs.currentIndex())
    assert sorted(asked) == ["labels", "model", "save"]
    assert said["pause"] == said["stop_keep_best"] == "training: expected one that runs, got none"
    assert said["keep"] == said["revert"] == "model: expected a trained one on trial, got none"
    assert said["train"].startswith("annotations: expected")
    assert said["segment"] == "Ready"
    names = [layer.name for layer in app.viewer.layers]
    made = {"labels", "all planes", "labels in tiles", "scribbles"}
    assert {f"photo [{role}]" for role in made} < set(names)
    assert any(name.endswith("objects]") for name in names)
    assert app.dock.annotate_panel.live.isChecked()
    wanted = {"annotate": "Annotate", "train": "Train", "make_objects": "Tools"}
    assert wanted | {"segment_folder": "Batch"} == {n: tabs[n] for n in [*wanted, "segment_folder"]}


def test_commands_reach_the_dock(open_app, photo):
    app = open_app(photo)
    assert commands.open_dock() is app.dock
    assert app.after(commands.segment) is app.dock.session.result
    commands.annotate()
    assert app.dock.annotating.layer in app.viewer.layers
