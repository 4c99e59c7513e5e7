"""Check 2: the package's golden texts give the vectors here that the package recorded.

Here means the machine on which the gate is run. Run it where the generation will serve.
"""

import math
import socket

from encoders.encoder import Encoder
from encoders.package.model_package import ModelPackage
from nearline.gate.figures import at_most, unmeasured
from nearline.gate.names import GOLDENS
from schemas.generations import GateFigure


def goldens(package: ModelPackage, device: str) -> GateFigure:
    """The figure is the largest 1 - cosine. Also checks the digests of the package's files. Raises PackageError."""
    encoder = Encoder.unchecked(ModelPackage.load(package.folder), device=device)
    distances = encoder.golden_distances()
    if not distances:
        return unmeasured(GOLDENS, "the package has no golden text; write it again", encoder.golden_tolerance)
    # A distance that is no number is the worst of all.
    largest = max(2.0 if math.isnan(distance) else max(distance, 0.0) for distance in distances)
    host = socket.gethostname()
    note = f"the largest 1 - cosine of {len(distances)} texts on {host}"
    if largest > encoder.golden_tolerance:
        note += "; this machine would serve other vectors than the package has: use another package or another machine"
    return at_most(GOLDENS, largest, encoder.golden_tolerance, note)
