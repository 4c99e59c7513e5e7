"""Refuses another generation where the machine has no room for it, before anything of it is begun.

`nearline generations build` asks for all processes of an instance that runs on its data folder. On other machines only
their own processes can tell: each process of a place asks for itself when it starts, and says so in its failure report;
a retriever asks before it opens what is ready. The size follows from what the serving generation has here.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from encoders.errors import BadPackage
from encoders.package.model_package import ModelPackage
from indexer.errors import IndexerError
from indexer.tiers import ColdReader
from nearline.ask.connections import Connections
from nearline.broker.embedded import topic_folders
from nearline.errors import NearlineError
from nearline.generations.free_room import free_here
from nearline.generations.local_files import cold_folder
from nearline.generations.packages import package_folder, package_here, packages_folder
from nearline.generations.room import (
    Corpus,
    Model,
    Room,
    cold_room,
    encode_room,
    log_room,
    refuse_without_room,
    serve_room,
    together,
)
from nearline.settings.settings import Settings
from nearline.up.cold_socket import cold_socket
from nearline.up.residence import Resident
from nearline.up.resources import encode_gpu, gpu_named
from retriever.errors import RetrieverError
from schemas.generations import GenerationRecord
from schemas.topics import generation_topics
from streams.generations.acts import Package
from streams.generations.state import Generations

_COUNT_S: Final = 5.0
_MEND: Final = "make room, or repeat the build with --force, which overrules this estimate"


def refuse_build_without_room(connections: Connections, package: Package, state: Generations) -> None:
    """Does nothing where no instance runs on the data folder. Raises NoRoom."""
    settings = connections.settings
    if state.serving is None or not connections.has_instance():
        return
    serving = state.serving
    fetched = packages_folder(settings.data_dir) / package.id
    model = Model.of(ModelPackage.read(Path(package.source.folder or fetched)))
    corpus = _corpus(settings, serving, model, lambda: connections.cold(_COUNT_S, serving.id))
    needed = _of_instance(settings, model, corpus)
    if state.kept is not None:
        # The build retires it.
        needed = needed.without(_of_kept(settings, state.kept, corpus))
    refuse_without_room(model.generation, "its processes need", needed, free_here(settings.data_dir), _MEND)


def refuse_encode_without_room(settings: Settings, resident: Resident, slot: int) -> None:
    """Raises NoRoom."""
    if _is_asked_for(resident):
        _refuse(settings, resident, encode_room(Model.of(resident.package), encode_gpu(settings, slot)))


def refuse_cold_without_room(settings: Settings, resident: Resident) -> None:
    """Of the embedded cold tier. Of what was indexed before a restart the disk is taken already. Raises NoRoom."""
    serving = resident.state().serving
    if serving is None or not _is_asked_for(resident):
        return

    def reader() -> ColdReader:
        from indexer.cold.socket.client import RemoteColdTier

        return RemoteColdTier(cold_socket(settings.data_dir, serving.id), _COUNT_S)

    model = Model.of(resident.package)
    needed = cold_room(model, _corpus(settings, serving, model, reader))
    taken = Room(disk=_size(cold_folder(settings.data_dir, resident.record.id)))
    _refuse(settings, resident, needed.without(taken))


def refuse_serve_without_room(
    settings: Settings, state: Generations, record: GenerationRecord, num_posts: int | None
) -> None:
    """Only of what is ready, and answers nobody yet. All processes of the retriever open it at about the same time, so
    each of them asks for all. `num_posts`: those of the serving generation in the hot tier here; None while that is
    being filled, and takes its own room too. Raises NoRoom, and what `package_here` raises."""
    if state.serving is None or record.state != "ready" or record.ignores_room or record == state.canary:
        return
    filling = [record] if num_posts is not None else [record, state.serving]
    models = [Model.of(package_here(each, settings)) for each in filling]
    needed = together(_of_retriever(settings, model, Corpus(model.dimension, num_posts, None)) for model in models)
    refuse_without_room(record.id, "the retriever needs", needed, free_here(settings.data_dir), _MEND)


def _is_asked_for(resident: Resident) -> bool:
    """What is complete has had its room, and answers: it is never kept from starting."""
    return resident.newest.state == "building" and not resident.newest.ignores_room


def _refuse(settings: Settings, resident: Resident, needed: Room) -> None:
    refuse_without_room(resident.record.id, "this process needs", needed, free_here(settings.data_dir), _MEND)


def _of_instance(settings: Settings, model: Model, corpus: Corpus) -> Room:
    """Of everything that works for one generation."""
    return together(
        [
            *(encode_room(model, encode_gpu(settings, slot)) for slot in range(settings.encode.workers)),
            *([cold_room(model, corpus)] if settings.cold.url is None else []),
            _of_retriever(settings, model, corpus),
            log_room(model, corpus),
        ]
    )


def _of_retriever(settings: Settings, model: Model, corpus: Corpus) -> Room:
    """Of all its processes."""
    return together(
        serve_room(
            model,
            corpus,
            capacity=settings.hot.capacity,
            snapshots=worker == 0 and settings.hot.snapshot_every_s is not None,
            encode_gpu=gpu_named(settings.encode.device),
            hot_gpu=gpu_named(settings.hot.device),
        )
        for worker in range(settings.serve.workers)
    )


def _of_kept(settings: Settings, kept: GenerationRecord, corpus: Corpus) -> Room:
    """What becomes free when it is retired; nothing where its package cannot be read."""
    try:
        model = Model.of(ModelPackage.read(package_folder(kept, settings)))
    except BadPackage:
        return Room()
    own = Corpus(model.dimension, corpus.posts, corpus.members, *_files(settings, kept))
    return _of_instance(settings, model, own)


def _corpus(
    settings: Settings, serving: GenerationRecord, model: Model, new_reader: Callable[[], ColdReader]
) -> Corpus:
    """Of a machine that has no package of the serving generation as if that had the same dimension."""
    try:
        dimension = ModelPackage.read(package_folder(serving, settings)).dimension
    except BadPackage:
        dimension = model.dimension
    posts = members = None
    with suppress(NearlineError, RetrieverError, IndexerError), closing(new_reader()) as reader:
        posts, members = reader.count("post", timeout_s=_COUNT_S), reader.count("member", timeout_s=_COUNT_S)
    return Corpus(dimension, posts, members, *_files(settings, serving))


def _files(settings: Settings, record: GenerationRecord) -> tuple[int, int]:
    """The bytes of its embedded cold tier, and of its topics at the embedded broker. 0 for what is not here."""
    topics = {spec.name for spec in generation_topics(record.id)}
    logs = topic_folders(settings.data_dir / "kafka", topics)
    return _size(cold_folder(settings.data_dir, record.id)), sum(map(_size, logs))


def _size(folder: Path) -> int:
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    """What each file takes on the disk: some are allocated ahead and hardly filled."""
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                yield Path(path, name).lstat().st_blocks * 512
