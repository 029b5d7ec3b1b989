"""Calls to a hotlora-server: the generated stubs are in hotlora.v1, what every caller needs besides is here."""

import pathlib
import unicodedata
import urllib.parse

import grpc

SERVICE_CONFIG = (pathlib.Path(__file__).parent / "service_config.json").read_text()


def connect(target, credentials=None, options=()):
    """A channel that tries again what did not start (UNAVAILABLE, RESOURCE_EXHAUSTED), and takes images of any size."""
    options = [("grpc.service_config", SERVICE_CONFIG), ("grpc.max_receive_message_length", -1), *options]
    if credentials:
        return grpc.secure_channel(target, credentials, options)
    return grpc.insecure_channel(target, options)


def routing(request):
    """Metadata for a call with this GenerateImagesRequest: load balancers send it where its adapters are already."""
    names = (unicodedata.normalize("NFC", adapter.name) for adapter in request.adapters)
    return [("x-adapter-key", ",".join(urllib.parse.quote(name, safe="/") for name in names) or "base")]
