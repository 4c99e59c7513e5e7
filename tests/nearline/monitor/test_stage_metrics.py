"""The monitor's figures by place, which scale deployments: pure, of what a look has seen."""

from nearline.monitor.seen import Look, followed_stages
from nearline.monitor.stage_metrics import stage_metrics
from schemas import topics
from schemas.generations import Pointer
from schemas.ids import Generation, Partition
from streams.generations.state import Generations
from streams.kafka.records import Place
from tests.kit.data.generations import generation_record

BLUE, GREEN = Generation("a-00000001"), Generation("b-00000002")
EMPTY = Look(0.0, {}, {}, {}, frozenset())


def samples(look: Look, *live: tuple[Generation, str, str]) -> dict[tuple[str, ...], float]:
    """By the name of the series and its labels' values."""
    records = [generation_record(generation, state, place) for generation, state, place in live]  # type: ignore[arg-type]
    state = Generations({record.id: record for record in records}, Pointer(records[0].id))
    metrics = stage_metrics(look, followed_stages(state))
    return {(sample.name, *sample.labels.values()): sample.value for metric in metrics for sample in metric.samples}


def test_an_empty_place_is_said_too_so_that_it_can_be_scaled_to_nothing() -> None:
    """Nothing at all is said where the log was not read: then a scaler must leave everything as it is."""
    said = samples(EMPTY, (BLUE, "serving", "blue"))
    assert (said["nearline_place_occupied", "blue"], said["nearline_place_occupied", "green"]) == (1, 0)
    assert not [key for key in said if "green" in key[1:] and key[0] != "nearline_place_occupied"]


def test_the_age_is_that_of_the_oldest_partition_and_none_waits_is_zero() -> None:
    waiting = {Place(topics.POST_CONTEXTS, Partition(number)): age for number, age in enumerate((3.0, 8.0))}
    look = EMPTY._replace(ages_s={topics.encode_group(GREEN): waiting})
    said = samples(look, (BLUE, "serving", "blue"), (GREEN, "building", "green"))
    assert said["nearline_stage_oldest_record_seconds", "encode", GREEN, "green"] == 8.0
    assert said["nearline_stage_oldest_record_seconds", "encode", BLUE, "blue"] == 0.0
    assert said["nearline_stage_oldest_record_seconds", "contexts", "", ""] == 0.0
