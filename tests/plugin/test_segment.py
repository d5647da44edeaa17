import dask
import dask.array
import numpy as np
import pytest
from skimage.measure import block_reduce

from napari_deepcrf.inference import Predictor

ROLES = ("unary", "marginals", "uncertainty", "labels", "history")


def test_segment_adds_the_layers_of_a_result(open_app, photo, model_file):
    app = open_app(photo)
    app.segment()
    shapes = {role: app.layer(role).data.shape for role in ROLES}
    assert shapes == {
        "unary": (4, 4, 61, 83),
        "marginals": (4, 4, 61, 83),
        "uncertainty": (4, 61, 83),
        "labels": (61, 83),
        "history": (4, 61, 83),
    }
    expected = Predictor(str(model_file), device="cpu").segment(photo)
    np.testing.assert_array_equal(app.layer("labels").data, expected.labels)
    marginals = app.layer("marginals").data
    np.testing.assert_allclose(marginals.swapaxes(0, 1), expected.marginals, atol=2e-3)
    assert marginals.dtype == np.float16
    assert app.dock.status_panel.badge.text() == "● up to date"


def test_layers_leave_the_view_where_it_is(open_app, photo):
    app = open_app(photo)
    camera = app.viewer.scene.camera
    camera.center, camera.zoom = (0.0, 20.0, 31.0), 9.0
    app.segment()
    assert (camera.center, camera.zoom) == ((0.0, 20.0, 31.0), 9.0)
    app.viewer.layers.remove(app.layer("history"))
    app.segment()
    assert (camera.center, camera.zoom) == ((0.0, 20.0, 31.0), 9.0)


def test_the_active_image_is_chosen_at_first(open_app, photo, make_napari_viewer):
    app = open_app(photo, photo[::2, ::2])
    assert app.dock.image_choice.layer is app.viewer.layers[-1]
    assert app.dock.source_panel.image.count() == 2


@pytest.mark.parametrize("kind", ["grey", "grey16", "float", "rgba", "bool"])
def test_kinds_of_images(open_app, photo, kind):
    grey = photo[..., 1]
    image = {
        "grey": grey,
        "grey16": grey.astype(np.uint16) * 200,
        "float": grey / 255,
        "rgba": np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)]),
        "bool": grey > 90,
    }[kind]
    app = open_app(image)
    result = app.segment()
    assert result.labels.shape == (61, 83)
    assert app.dock.session.fresh


def test_layers_lie_where_the_image_lies(open_app, photo):
    transform = {
        "scale": (0.5, 2.0),
        "translate": (7, -3),
        "rotate": 20,
        "shear": [0.3],
        "affine": [[1, 0.2, 4], [0, 1.5, -2], [0, 0, 1]],
        "units": ("um", "um"),
    }
    app = open_app(photo, **transform)
    app.segment()
    image = app.viewer.layers["photo"]
    corner = np.array([12.0, 70.0])
    world = np.asarray(image.data_to_world(corner))
    for role in ROLES:
        layer = app.layer(role)
        leading = layer.ndim - 2
        np.testing.assert_allclose(
            np.asarray(layer.data_to_world([1] * leading + list(corner))),
            [1] * leading + list(world),
        )
        assert layer.units[-2:] == image.units
    np.testing.assert_allclose(app.layer("labels").scale, (0.5, 2.0))
    image.scale, image.rotate = (3.0, 1.0), -35
    app.segment()
    for role in ROLES:
        layer = app.layer(role)
        world = np.asarray(layer.data_to_world([0] * (layer.ndim - 2) + list(corner)))
        np.testing.assert_allclose(world[-2:], image.data_to_world(corner))


def test_planes_of_a_stack_that_are_annotated_are_trained_on(open_app, photo):
    stack = np.stack([photo[..., k % 3] for k in range(5)])
    app = open_app(stack, rgb=False)
    app.dock.annotate()
    scribbles = app.dock.annotating.layer
    assert app.dock.annotating.pairing.open_pairs()() == []
    for plane, label in ((3, 2), (1, 1)):
        scribbles.data[plane, 10:14, 5:60] = label
    pairs = app.dock.annotating.pairing.open_pairs()()
    assert [int(pair.annotation.max()) for pair in pairs] == [1, 2]
    np.testing.assert_array_equal(pairs[1].image.read(), stack[3])
    pairs[0].annotation[:] = 7
    assert scribbles.data.max() == 2  # a training has copies


def test_a_stack_is_segmented_at_the_plane_shown(open_app, photo):
    stack = np.stack([photo[..., 0], photo[..., 1], photo[..., 2]])
    app = open_app(stack, scale=(4, 1, 1), rgb=False)
    app.viewer.dims.set_current_step(0, 2)
    result = app.segment()
    np.testing.assert_array_equal(
        result.labels, Predictor(app.dock.session.model, device="cpu").segment(stack[2]).labels
    )
    labels, history = app.layer("labels"), app.layer("history")
    assert labels.data.shape == (1, 61, 83)
    assert history.data.shape == (4, 1, 61, 83)
    assert labels.data_to_world((0, 0, 0)) == (8, 0, 0)
    assert app.dock.session.fresh
    app.viewer.dims.set_current_step(app.viewer.dims.ndim - 3, 1)
    assert not app.dock.session.fresh


def test_the_plane_is_told_in_a_viewer_whose_steps_are_others(open_app, photo):
    stack = np.stack([photo[..., k % 3] for k in range(4)])
    app = open_app(stack, scale=(3, 1, 1), rgb=False)
    app.viewer.add_points(np.zeros((1, 3)), scale=(0.5, 1, 1))  # finer along z
    app.viewer.layers.selection.active = app.viewer.layers["photo"]
    app.viewer.dims.set_point(0, 6.5)
    assert app.viewer.dims.current_step[0] > 3
    assert app.dock.image_choice.plane.leading == (2,)
    app.segment()
    axis = app.viewer.dims.ndim - 4
    app.viewer.add_image(photo[..., 0][None].repeat(9, 0)[:, None, None], scale=(0.5, 1, 1, 1, 1))
    for update in (1, 3, 0):
        app.dock.view_panel.update_slider.setValue(update)
        assert app.viewer.dims.point[axis] == update
        app.viewer.dims.set_point(axis, update + 0.4)
        assert app.dock.view_panel.update_slider.value() == update


def test_lazy_stacks_are_read_plane_by_plane(open_app, photo):
    read = []

    def plane(index):
        read.append(index)
        return photo[..., index % 3][None]

    blocks = [
        dask.array.from_delayed(dask.delayed(plane)(index), (1, *photo.shape[:2]), photo.dtype)
        for index in range(40)
    ]
    app = open_app(dask.array.concatenate(blocks), rgb=False, contrast_limits=(0, 255))
    app.viewer.dims.set_current_step(0, 32)
    result = app.segment()
    expected = Predictor(app.dock.session.model, device="cpu").segment(photo[..., 2]).labels
    np.testing.assert_array_equal(result.labels, expected)
    assert len(set(read)) < 10


def test_channels_are_one_image(open_app, photo):
    rng = np.random.default_rng(0)
    channels = rng.integers(0, 4000, (3, 61, 83), dtype=np.uint16)
    channels[1, 20:45, 25:60] += 30_000
    app = open_app(channels, rgb=False, axis_labels=("channel", "y", "x"))
    result = app.segment()
    assert app.dock.session.cache.image.shape == (61, 83, 3)
    assert app.dock.session.cache.image.max(axis=(0, 1)).tolist() == [255.0] * 3
    assert result.labels.shape == (61, 83)
    assert app.layer("history").data.shape == (4, 3, 61, 83)
    app.viewer.dims.set_current_step(app.viewer.dims.ndim - 3, 2)
    assert app.dock.session.fresh  # another channel is no other image
    app.dock.annotate()
    scribbles = app.dock.annotating.layer
    scribbles.data[2, 10:14, 5:60] = 2
    (pair,) = app.dock.annotating.pairing.open_pairs()()
    assert pair.annotation.shape == (61, 83)
    assert pair.annotation[12, 30] == 2
    assert pair.image.read().shape == (61, 83, 3)


def test_multiscale_images_are_segmented_at_full_size(open_app, photo):
    app = open_app()
    pyramid = [photo, block_reduce(photo, (2, 2, 1), np.mean).astype(np.uint8)]
    app.viewer.add_image(pyramid, name="pyramid", multiscale=True)
    assert app.segment().labels.shape == (61, 83)


def test_the_update_slider_plays_the_history(open_app, photo):
    app = open_app(photo)
    result = app.segment()
    axis = app.viewer.dims.ndim - 3
    assert app.viewer.dims.current_step[axis] == 3
    assert app.viewer.dims.axis_labels[axis - 1 : axis + 1] == ("class", "update")
    assert app.dock.view_panel.update_slider.value() == 3
    for update in (0, 2):
        app.dock.view_panel.update_slider.setValue(update)
        assert app.viewer.dims.current_step[axis] == update
        shown = app.layer("history").get_value((update, 30, 40))
        assert shown == result.history[update, 30, 40]
    np.testing.assert_array_equal(result.history[0], result.unary.argmax(0))
    app.viewer.dims.set_current_step(axis, 1)
    assert app.dock.view_panel.update_slider.value() == 1


def test_the_class_list_moves_the_class_slider_and_back(open_app, photo):
    app = open_app(photo)
    app.segment()
    axis = app.viewer.dims.ndim - 4
    app.dock.view_panel.classes.setCurrentIndex(2)
    app.dock.view_panel.classes.activated.emit(2)
    assert app.viewer.dims.current_step[axis] == 2
    app.viewer.dims.set_current_step(axis, 3)
    assert app.dock.view_panel.classes.currentText() == "person"


def test_unusable_images_get_one_line_and_nothing_else(open_app, photo):
    bad = photo.astype(np.float32)
    bad[3, 4] = np.nan
    app = open_app(bad[..., 0])
    before = list(app.viewer.layers)
    app.dock.source_panel.segment.click()
    app.idle()
    assert "NaN" in app.dock.status_panel.text.text()
    assert list(app.viewer.layers) == before


def test_without_an_image_segment_says_so(open_app):
    app = open_app()
    app.dock.source_panel.segment.click()
    assert app.dock.status_panel.text.text().startswith("image: expected")
