"""What the encode stage of a generation must know to write `post-vectors`: whether its generation serves, and since
when. It learns that from the log of the generations.
"""

from nearline.settings.settings import Settings
from nearline.up.residence import Resident
from streams.encode.post_vectors.reign import Reign
from streams.encode.post_vectors.writer import PostVectorsOf
from streams.generations.log import read_generations
from streams.generations.state import Generations


def post_vectors_of(settings: Settings, resident: Resident) -> PostVectorsOf:
    package = resident.package
    dimension = min(settings.encode.post_vectors_dimension, package.dimension)
    is_text = package.manifest.templates.post.fields == ("text",)

    def reign(state: Generations) -> Reign | None:
        serving = state.serving
        if serving is None or serving.life != resident.record.life:
            return None
        return Reign(serving.id, serving.since, dimension, is_text)

    return PostVectorsOf(
        dimension, is_text, lambda: reign(resident.state()), lambda: reign(read_generations(settings.kafka))
    )
