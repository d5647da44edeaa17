"""The `napari-deepcrf` command: its subcommands, and what an error looks like."""

import sys

import typer

from napari_deepcrf.cli.bench import bench
from napari_deepcrf.cli.data import data
from napari_deepcrf.cli.demo import demo
from napari_deepcrf.cli.evaluate import evaluate
from napari_deepcrf.cli.models import models
from napari_deepcrf.cli.refine import refine
from napari_deepcrf.cli.segment import segment
from napari_deepcrf.cli.train import train

app = typer.Typer(
    name="napari-deepcrf",
    help="Segment images with a jointly trained network and dense CRF, and train your own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (demo, segment, data, train, evaluate, refine, models, bench):
    app.command()(command)


def main() -> None:
    """Run the command line; bad input ends in one line and exit code 2."""
    try:
        app()
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
