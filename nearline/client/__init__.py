"""The client of the retriever over gRPC, for other services: `nearline.Client` and `nearline.AsyncClient`.

Imports gRPC and protobuf, and of ours only the message classes and the errors: neither torch nor Kafka nor pydantic.
"""
