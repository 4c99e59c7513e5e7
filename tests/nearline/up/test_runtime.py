"""What `nearline up` says of itself in its data folder, without processes."""

from pathlib import Path

from nearline.settings.instance import read_last_instance
from nearline.settings.settings import Settings
from nearline.up.runtime import Runtime
from retriever.settings import ServeSettings
from streams.generations.state import Generations
from streams.settings import KafkaSettings
from tests.kit.instances import NO_BROKER


def test_a_data_folder_that_cannot_be_written_ends_nothing_and_is_tried_again(tmp_path: Path) -> None:
    """As on a full disk: the processes go on, or are started again, as soon as there is room."""
    data_dir = tmp_path / "away"
    kafka, serve = KafkaSettings(bootstrap_servers=NO_BROKER), ServeSettings(port=20_000, grpc_port=20_001)
    runtime = Runtime(Settings(data_dir=data_dir, kafka=kafka, serve=serve), None, "none")
    for _ in range(2):
        runtime._write_instance(Generations())
    data_dir.mkdir()
    runtime._write_instance(Generations())
    assert read_last_instance(data_dir).bootstrap_servers == NO_BROKER
