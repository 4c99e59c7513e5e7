"""Published models, as the topic `models` announces them."""

from datetime import datetime, timedelta

from schemas.generations import PackageSource
from schemas.ids import Generation
from schemas.models import ModelRecord
from tests.kit.data.generations import AT


def model_record(name: str, *, hours: float = 0, at: datetime = AT) -> ModelRecord:
    """`hours`: after `at`, when it was published."""
    source = PackageSource(registry="s3://models")
    return ModelRecord(Generation(name), f"digest of {name}", source, at + timedelta(hours=hours))
