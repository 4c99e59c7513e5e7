"""What is said of a request with very many mistakes: to say all of them would hold up everybody else."""

import pytest
from pydantic import BaseModel, ValidationError

from schemas.api import MAX_BATCH, BatchQuery, RetrieveBatchRequest, RetrieveRequest, SimilarRequest, VectorsRequest

REQUESTS = [RetrieveRequest, RetrieveBatchRequest, SimilarRequest, VectorsRequest]


@pytest.mark.parametrize("request_", REQUESTS)
def test_of_a_long_list_one_mistake_is_said(request_: type[BaseModel]) -> None:
    with pytest.raises(ValidationError) as caught:
        request_.model_validate({name: [{}] * 1000 for name in request_.model_fields})
    assert sorted(str(details["loc"][0]) for details in caught.value.errors()) == sorted(request_.model_fields)


def test_nor_does_a_batch_say_many() -> None:
    query = {name: [{}] * 1000 for name in BatchQuery.model_fields}
    with pytest.raises(ValidationError) as caught:
        RetrieveBatchRequest.model_validate({"queries": [query] * MAX_BATCH})
    assert caught.value.error_count() == MAX_BATCH * len(query)


@pytest.mark.parametrize("request_", REQUESTS)
def test_very_many_fields_are_counted_and_not_named(request_: type[BaseModel]) -> None:
    known = len(request_.model_fields)
    with pytest.raises(ValidationError, match=f"there are 1,000 fields, and {known} are known") as caught:
        request_.model_validate({f"field {number}": 0 for number in range(1000)})
    assert caught.value.error_count() == 1
