"""The committed message classes are those of the proto."""

from retriever.grpc.generate import ROOT, render


def test_the_committed_classes_are_those_of_the_proto() -> None:
    committed = {path: (ROOT / path).read_bytes() for path in render()}
    assert committed == render(), "renew them with: python -m retriever.grpc.generate"
