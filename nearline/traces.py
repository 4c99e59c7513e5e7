"""Sends the traces of a process to an OpenTelemetry collector, if an endpoint is named: by the setting
`traces.endpoint`, or by the standard variable OTEL_EXPORTER_OTLP_ENDPOINT. The other standard variables hold too, such
as OTEL_TRACES_SAMPLER. The SDK is loaded only then.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Final

from nearline.settings.settings import TracesSettings
from schemas.traces import trace_with

_STANDARD: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_FLUSH_S: Final = 2.0
"""At the end of the process, which has a few seconds for all. What is not sent by then is lost."""


@contextmanager
def traced(process: str, settings: TracesSettings) -> Iterator[None]:
    """Within the context events are traced."""
    if settings.endpoint is None and not any(map(os.environ.get, _STANDARD)):
        yield
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    url = None if settings.endpoint is None else f"{settings.endpoint.rstrip('/')}/v1/traces"
    names = {"service.name": "nearline", "service.instance.id": process}
    provider = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    trace_with(provider.get_tracer("nearline"))
    try:
        yield
    finally:
        trace_with(None)
        # The SDK's own limit is not kept: it would wait for a collector that does not answer for as long as that takes.
        flush = Thread(target=provider.force_flush, name="flush traces", daemon=True)
        flush.start()
        flush.join(_FLUSH_S)
