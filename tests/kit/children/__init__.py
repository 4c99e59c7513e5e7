"""Processes that tests start, stop and kill: `python -m tests.kit.children.MODULE`."""

from streams.kafka.crash_points import arm


def arm_crash_point(text: str) -> None:
    """Arms the point of a text `NAME` or `NAME:PASSES`, as a test passes it to a child. Empty: arms none."""
    name, _, passes = text.partition(":")
    if name:
        arm(name, int(passes or 1))
