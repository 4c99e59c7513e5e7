"""Which stages there are."""

from schemas.stages import post_vectors_reads, post_vectors_stages
from tests.kit.data.generations import generation_record


def test_post_vectors_are_a_stage_where_they_are_written_and_something_serves() -> None:
    serving = generation_record("a-1")
    assert post_vectors_stages(serving, written=True) == [post_vectors_reads(serving)]
    assert post_vectors_stages(serving, written=False) == post_vectors_stages(None, written=True) == []
