"""The network's scores of large images against the network itself."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_deepcrf.inference import coarse_maps
from napari_deepcrf.inference.coarse_maps import NETWORK_SHARE
from napari_deepcrf.inference.lazy_image import LazyImage
from napari_deepcrf.inference.network_halves import NetworkHalves
from napari_deepcrf.inference.resampling import reduce_window
from napari_deepcrf.inference.score_maps import score_maps
from napari_deepcrf.models import VGG16, MobileNetV2, UnaryNetwork
from napari_deepcrf.models.fine_head import FineUnaryNetwork

CPU = torch.device("cpu")


def _maps(network, image, view, share=NETWORK_SHARE):
    return score_maps(
        network,
        LazyImage.of(image),
        view=view,
        share=share,
        device=CPU,
        on_progress=lambda done, total: None,
    )


@pytest.mark.parametrize("size", [(64, 104), (203, 331), (310, 500)])
def test_reducing_in_bands_is_pytorchs_antialiased_bilinear(photo, size, monkeypatch):
    monkeypatch.setattr("napari_deepcrf.inference.resampling.BAND", 5000)
    tensor = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
    whole = F.interpolate(tensor, size=size, mode="bilinear", antialias=True)
    got = reduce_window(LazyImage.of(photo), size, (11, 57), (23, size[1]))
    expected = whole[0].permute(1, 2, 0)[11:57, 23:].numpy()
    np.testing.assert_allclose(got, expected, atol=0.03)


@pytest.mark.parametrize("backbone", [VGG16(3, width=0.06, head="smallfov"), MobileNetV2(3)])
def test_one_window_gives_the_networks_own_scores(photo, backbone):
    network = UnaryNetwork(backbone.eval(), input_size=120, scales=(0.7, 1.0)).eval()
    with torch.inference_mode():
        expected = network(torch.from_numpy(photo).permute(2, 0, 1)[None].float())[0].numpy()
    maps = _maps(network, photo, max(photo.shape))
    rows, columns = np.arange(203), np.arange(331)
    tolerance = 1e-4 * abs(expected).max()
    np.testing.assert_allclose(maps.at(rows, columns), expected, atol=tolerance)
    thin = maps.at(rows[3::7], columns[2::5])
    np.testing.assert_allclose(thin, expected[:, 3::7, 2::5], atol=tolerance)


@pytest.mark.parametrize("backbone", [VGG16(3, width=0.06, head="smallfov"), MobileNetV2(3)])
def test_windows_and_their_pieces_leave_no_seam(backbone, monkeypatch):
    image = np.random.default_rng(0).integers(0, 255, (24, 1500, 3), dtype=np.uint8)
    network = UnaryNetwork(backbone.eval(), input_size=None).eval()
    with torch.inference_mode():
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        whole = network.coarse(tensor)[0].numpy()
    monkeypatch.setattr(coarse_maps, "PIECE", 17)
    assert whole.shape[2] > 4 * NetworkHalves.of(network).second_margin
    parts = _maps(network, image, 1500, share=1).maps[0]
    np.testing.assert_allclose(parts, whole, atol=1e-4 * abs(whole).max())


def test_the_view_sets_the_scale(photo):
    network = UnaryNetwork(VGG16(3, width=0.06, head="smallfov").eval(), input_size=40)
    assert _maps(network, photo, 331).maps[0].shape == (3, 4, 6)
    assert _maps(network, photo, 110).maps[0].shape == (3, 11, 16)


@pytest.fixture(scope="module")
def fine_network() -> FineUnaryNetwork:
    torch.manual_seed(0)
    network = FineUnaryNetwork(VGG16(3, width=0.06, head="smallfov"), input_size=40).eval()
    for parameter in network.fine.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    return network


def test_a_fine_network_sees_an_image_that_fits_as_a_whole(fine_network, photo):
    with torch.inference_mode():
        tensor = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
        expected = fine_network(tensor)[0].numpy()
    found = _maps(fine_network, photo, max(photo.shape)).at(np.arange(203), np.arange(331))
    np.testing.assert_allclose(found, expected, atol=1e-4 * abs(expected).max())


def test_windows_of_a_fine_network_fade_into_each_other(fine_network, photo):
    told = []
    maps = score_maps(
        fine_network,
        LazyImage.of(photo),
        view=160,
        share=NETWORK_SHARE,
        device=CPU,
        on_progress=lambda *progress: told.append(progress),
    )
    assert told[-1] == (6, 6)
    (scores,) = maps.maps
    assert scores.shape == (3, 26, 42)
    assert np.isfinite(scores).all()
    # The left upper corner belongs to one window alone.
    corner = torch.from_numpy(photo[:160, :160].copy()).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        alone = fine_network.coarse(corner)[0].numpy()
    np.testing.assert_allclose(scores[:, :5, :10], alone[:, :5, :10], rtol=1e-3, atol=1e-4)
    assert maps.at(np.arange(203), np.arange(331)).shape == (3, 203, 331)
