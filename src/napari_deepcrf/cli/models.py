"""`napari-deepcrf models`."""

import json
from dataclasses import asdict

from napari_deepcrf.cli.options import Json


def models(as_json: Json = False) -> None:
    """List the models that `--model` knows by name."""
    from napari_deepcrf.models.zoo import available_models

    entries = available_models()
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
        return
    for entry in entries:
        print(f"{entry.name:16} {entry.description}")
