"""Every effect is followed by a named crash point, or the lists below say why it needs none."""

import ast
import re
from pathlib import Path

from streams.kafka import crash_points

SOURCES = Path(__file__).parents[3]
PACKAGES = ("streams", "indexer", "retriever", "nearline")
EFFECTS = {
    *("produce", "produce_batch", "begin_transaction", "commit_transaction", "abort_transaction", "commit"),
    *("send_offsets_to_transaction", "store_offsets", "alter_consumer_group_offsets"),
    *("create_topics", "delete_topics", "create_partitions", "delete_records", "delete_consumer_groups"),
    *("delete_collection",),
    *("deliver", "incremental_alter_configs", "alter_configs", "send", "send_and_wait", "send_soon", "ack"),
    *("write", "put", "delete", "remove", "flush", "upsert", "sweep", "destroy", "upsert_points", "delete_points"),
    "rename",
}
"""Methods and functions by which anything reaches the broker, the rows or a tier. A method that is only named, and
perhaps called elsewhere, counts too."""
NAMED = {
    "streams.kafka.transactional_loop._begin: begin_transaction": "transaction.begun",
    "streams.kafka.transactional_loop._send: produce": "transaction.outputs-sent",
    "streams.kafka.transactional_loop._send_offsets: send_offsets_to_transaction": "transaction.offsets-sent",
    "streams.kafka.transactional_loop._run_transaction: commit_transaction": "transaction.committed",
    "streams.index.records._write: write": "index.indexed",
    "streams.index.records._flush: flush": "index.flushed",
    "streams.index.loop._send_dead_letters: deliver": "index.dead-lettered",
    "streams.index.loop._store_offsets: store_offsets": "index.stored",
    "streams.index.loop._on_revoke: commit": "index.committed",
    "streams.generations.log._commit: begin_transaction": "generations.begun",
    "streams.generations.log._commit: produce": "generations.records-sent",
    "streams.generations.log._commit: flush": "generations.records-sent",
    "streams.generations.log._commit: commit_transaction": "generations.committed",
    "streams.generations.removal._delete_group: delete_consumer_groups": "generations.groups-deleted",
    "streams.generations.removal._delete_topics: delete_topics": "generations.topics-deleted",
}
"""For each effect the crash point that follows it, in the same file: there chaos tests let the process crash."""
WITHIN = {
    "transaction.rows-written": {
        "streams.contexts.table_partition.on_committed: write",
        "streams.contexts.row_store.write: delete",
        "streams.contexts.row_store.write: put",
        "streams.contexts.row_store.write: write",
    },
    "index.indexed": {
        "indexer.cold.edge.tier.write: write",
        "indexer.cold.edge.tier.write: put",
        "indexer.cold.edge.tier.write: upsert",
        "indexer.cold.edge.shards.upsert: upsert_points",
        "indexer.cold.qdrant.tier._upsert: upsert",
    },
    "index.flushed": {"indexer.cold.edge.tier.flush: flush", "indexer.cold.edge.shards.flush: flush"},
    "index.dead-lettered": {
        "streams.kafka.sending.produce: produce",
        "streams.kafka.sending.deliver: produce",
        "streams.kafka.sending.deliver: flush",
    },
    "generations.package-fetched": {"nearline.generations.packages.fetch_unless_here: rename"},
    "generations.topics-made": {"streams.kafka.topics._create: create_topics"},
    "generations.files-removed": {"indexer.cold.qdrant.collections.delete_collections: delete_collection"},
    "generations.topics-deleted": {"nearline.generations.retiring.remove_retired: delete_topics"},
}
"""For each crash point the effects in other files that happen before the process passes it."""
NEEDLESS = {
    "nothing of the partition was read yet; the next start does it again": {
        "streams.index.loop._on_assign: commit",
    },
    "only offsets of control records: a crash repeats nothing": {
        "streams.kafka.transactional_loop._commit_offsets: commit_transaction",
    },
    "a crash may cost or repeat a few events of scores that decay anyway": {
        "streams.trending.stage.count: ack",
        "streams.trending.faust_commits.commit_with_metadata: commit",
        "streams.trending.stage._write_lists: send",
    },
    "nothing of it outlives the process": {
        "nearline.gate.gate.run_gate: remove",
        "retriever.feed.hot_feed._take_trending: put",
        "retriever.feed.member_store._put: put",
        "indexer.hot.tier._apply_step: write",
        "indexer.hot.tier.apply: remove",
        "indexer.hot.change_order._pop: remove",
        "indexer.hot.change_order.renew: remove",
        "indexer.hot.contents.write: put",
        "indexer.hot.matrix.host_rows.put: put",
        "indexer.hot.matrix.device_rows.put: put",
        "indexer.hot.matrix.torch_matrix.put: put",
        "indexer.hot.matrix.torch_matrix._copied: put",
        "indexer.hot.snapshot._fill: write",
        "indexer.cold.edge.point_table.load: put",
        "indexer.cold.edge.point_table.load: remove",
        "retriever.service.question_queue._forget: remove",
        "retriever.service.question_queue._leave: deliver",
        "retriever.service.question_queue.close: put",
        "retriever.service.question_queue.run: put",
    },
    "a question or its answer, which the client asks again": {
        "indexer.cold.socket.client._ask: send",
        "indexer.cold.socket.client.scroll_posts: send",
        "indexer.cold.socket.server._serve: send",
        "nearline.http_pages._send: write",
        "retriever.grpc.health._send_changes: write",
        "retriever.http.tracing.send_traced: send",
        "retriever.service.service._answer: write",
        "retriever.service.service.work: write",
    },
    "a canary that a killed monitor leaves is found and deleted by the next one": {
        "nearline.monitor.canaries._begin: send",
        "nearline.monitor.canaries._delete: send",
        "nearline.monitor.canaries._delete_leftovers: send",
    },
    "removes what nobody sees; nothing follows that stands on it": {
        "nearline.generations.retiring.remove_unbuilt: delete_topics",
        "streams.index.loop._sweep_if_due: sweep",
        "indexer.cold.edge.tier._sweep: remove",
        "indexer.cold.edge.shards.remove: delete_points",
        "indexer.cold.qdrant.tier.sweep: delete",
        "streams.contexts.row_store.compact_if_due: flush",
        "streams.contexts.row_store.remove_abandoned: destroy",
        "streams.contexts.row_store._throw_away_unopened: destroy",
    },
    "a copy that takes the old one's place only when it is whole": {
        "indexer.cold.edge.shards._copy: upsert_points",
        "indexer.cold.edge.shards.rewrite: flush",
        "indexer.cold.edge.shard_folders.recover_shard: rename",
        "indexer.cold.edge.shard_folders.swap: rename",
        "indexer.cold.edge.shards._open_or_create: rename",
        "nearline.broker.class_archive._make: rename",
        "nearline.broker.jars.ensure_jars: rename",
        "indexer.hot.snapshot.write: write",
        "indexer.hot.snapshot_file.write: write",
        "indexer.hot.snapshot_file.write: flush",
        "indexer.hot.snapshot_file._write_part: write",
    },
    "the older of two points of one entity, at every start as long as it is there": {
        "indexer.cold.edge.tier.__init__: remove",
    },
    "rows before the first record, restored from the changelog as often as needed": {
        "streams.contexts.restore._write_cells: write",
    },
    "records without an effect, for the broker to close its segments": {
        "streams.kafka.closing_segments.close_segments: abort_transaction",
        "streams.kafka.closing_segments.close_segments: begin_transaction",
        "streams.kafka.closing_segments.close_segments: flush",
        "streams.kafka.closing_segments.close_segments: produce",
    },
    "a command: who runs it sees that it did not end, and runs it again": {
        "nearline.commands.ingest._send: send",
        "nearline.commands.replay._replay: send",
        "streams.operate.ingest.close: flush",
        "streams.operate.event_files.open_events: write",
        "streams.operate.export._write: rename",
        "streams.operate.ingest.send: produce",
        "streams.kafka.sending.send_all: produce",
        "streams.kafka.sending.send_all: flush",
        "streams.kafka.group_offsets._set_once: alter_consumer_group_offsets",
        "streams.operate.dead_letter_replay.clear: delete_records",
        "nearline.rebuild.files.clear: delete_records",
    },
    "after an error: nothing of it counts, and the next operator would end it too": {
        "streams.generations.log._commit: abort_transaction",
    },
    "a command's transaction, of all or nothing: no offsets and no rows stand on it": {
        "streams.kafka.command_transactions.commit: abort_transaction",
        "streams.kafka.command_transactions.commit: begin_transaction",
        "streams.kafka.command_transactions.commit: commit_transaction",
        "streams.kafka.command_transactions.commit: produce",
        "streams.operate.dead_letter_replay.drop: commit",
        "streams.operate.dead_letter_replay.replay: commit",
        "nearline.rebuild.files.load: commit",
        "streams.encode.post_vectors.switch._write: commit",
    },
    "collections as they should be, made sure of at every start": {
        "nearline.up.build_place._make_collections: write",
    },
    "topics as they should be, made sure of at every start": {
        "streams.kafka.topics._update: incremental_alter_configs",
    },
    "words for people": {
        "nearline.cli.main: flush",
        "nearline.up.process.leave: flush",
        "streams.kafka.crash_points.crash_point: write",
        "nearline.top.terminal._write: write",
    },
}
"""Effects without a crash point, by the reason why they need none."""


def test_the_code_passes_exactly_the_crash_points_that_have_a_name() -> None:
    named = [
        name
        for package in PACKAGES
        for file in (SOURCES / package).rglob("*.py")
        for name in re.findall(r'\bcrash_point\("([^"]+)"\)', file.read_text())
    ]
    assert sorted(named) == sorted(crash_points.NAMES)


def test_every_effect_has_a_crash_point_or_a_reason() -> None:
    """If this fails for a new effect: give it a crash point, or list it above with the reason why it needs none."""
    not_named = set().union(*WITHIN.values(), *NEEDLESS.values())
    listed = NAMED.keys() | not_named
    effects = {effect for package in PACKAGES for file in _files(package) for effect in _effects(file)}
    assert effects - listed == set(), "effects that nobody has looked at"
    assert listed - effects == set(), "effects that are not there any more"
    assert NAMED.keys() & not_named == set()
    assert WITHIN.keys() | set(NAMED.values()) == set(crash_points.NAMES)


def test_a_crash_point_is_in_the_file_of_its_effect() -> None:
    for effect, name in NAMED.items():
        module = effect.partition(":")[0].rpartition(".")[0]
        assert f'crash_point("{name}")' in (SOURCES / module.replace(".", "/")).with_suffix(".py").read_text(), effect


def test_an_effect_in_a_new_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "streams" / "new" / "forwarder.py"
    file.parent.mkdir(parents=True)
    file.write_text("class Forwarder:\n    async def forward(self):\n        send = self._producer.produce\n")
    assert _effects(file, tmp_path) == {"streams.new.forwarder.forward: produce"}
    file.write_text("def forward(record):\n    produce(producer, record)\n")
    assert _effects(file, tmp_path) == {"streams.new.forwarder.forward: produce"}


def _files(package: str) -> list[Path]:
    """Without the folders that only play an adversary or a user."""
    others = (SOURCES / "nearline" / "chaos", SOURCES / "nearline" / "demo")
    return [file for file in (SOURCES / package).rglob("*.py") if not any(map(file.is_relative_to, others))]


def _effects(file: Path, root: Path = SOURCES) -> set[str]:
    """`folder.module.function: method`, with the module's name as in an import."""
    tree = ast.parse(file.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    methods = [(node, node.attr) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = [(call, call.func.id) for call in calls if isinstance(call.func, ast.Name)]
    module = ".".join(file.relative_to(root).with_suffix("").parts)
    effects = [(node, name) for node, name in (*methods, *called) if name in EFFECTS]
    return {f"{module}.{_innermost(functions, node)}: {name}" for node, name in effects}


def _innermost(functions: list[ast.FunctionDef | ast.AsyncFunctionDef], node: ast.expr) -> str:
    around = [function for function in functions if function.lineno <= node.lineno <= (function.end_lineno or 0)]
    return max(around, key=lambda function: function.lineno).name if around else ""
