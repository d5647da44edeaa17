"""Long work ends where it is asked to, in its own thread and no other."""

import threading

import numpy as np
import pytest
import torch

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.interrupt import Interrupted, interruptible, raise_if_interrupted
from napari_deepcrf.session.interruptible_network import interruptible_network


def raised() -> threading.Event:
    flag = threading.Event()
    flag.set()
    return flag


def test_interruption_answers_to_the_flag_of_its_own_thread():
    raise_if_interrupted()
    with interruptible(threading.Event()):
        raise_if_interrupted()
    seen = []
    with interruptible(raised()):
        thread = threading.Thread(target=lambda: seen.append(raise_if_interrupted()))
        thread.start()
        thread.join()
        with pytest.raises(Interrupted):
            raise_if_interrupted()
    raise_if_interrupted()
    assert seen == [None]


def test_a_mean_field_stops_between_its_passes():
    scores, image = torch.randn(1, 3, 17, 19), 255 * torch.rand(1, 3, 17, 19)
    crf = DenseCRF(CRFParameters(), backend="numba")
    prepared = crf.prepare(image)
    with torch.inference_mode(), interruptible(raised()), pytest.raises(Interrupted):
        crf.trace(scores, image, prepared=prepared)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_network_stops_before_any_layer_and_on_the_way_back(layer):
    flag = threading.Event()
    network = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(4)))
    entered = []
    for n, module in enumerate(network):
        module.register_forward_pre_hook(lambda *_, n=n: entered.append(n))
    with interruptible_network(network), interruptible(flag):
        loss = network(torch.ones(2, 4)).sum()
        network[layer].register_forward_pre_hook(lambda *_: flag.set())
        with pytest.raises(Interrupted):
            network(torch.ones(2, 4))
        with pytest.raises(Interrupted):
            loss.backward()
    assert entered[4:] == list(range(layer + 2))  # its own hook came before ours
    assert network[3].weight.grad is None or np.isfinite(network[3].weight.grad).all()
    with interruptible(flag):
        network(torch.ones(2, 4)).sum().backward()
    assert network[0].weight.grad is not None
