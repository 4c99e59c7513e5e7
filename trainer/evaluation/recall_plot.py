"""Draws recall against k."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_recall(curves: Mapping[str, Sequence[float]], ks: Sequence[int], file: Path) -> None:
    """One line for each system. The file's suffix says the image format."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, values in curves.items():
        axes.plot(ks, values, label=name)
    axes.set(xscale="log", xlabel="k", ylabel="recall", xlim=(ks[0], ks[-1]), ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file)
