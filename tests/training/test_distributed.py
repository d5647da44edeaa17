"""Two processes with half of every batch each follow one process with the whole batch."""

import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("run_shared.py")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without distributed")
def test_two_processes_have_the_losses_and_figures_of_one_in_both_stages(voc_root):
    threads = torch.get_num_threads()
    try:
        expected, names = runpy.run_path(str(SCRIPT))["figures"](voc_root)
    finally:
        torch.set_num_threads(threads)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(voc_root)],
            env={**os.environ, **place, "RANK": str(number)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    found, found_names = json.loads(outputs[0])
    assert found == pytest.approx(expected, rel=1e-5)
    assert found_names == names
    assert outputs[1] == ""
    assert expected[3] < expected[0]
    assert len(expected) == 4 + 3 + 2 * 5
