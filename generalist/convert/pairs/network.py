"""Whether there is a network: asked once, before a library tries for minutes."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlparse

PATIENCE = 3.0  # seconds


def online() -> bool:
    """Whether the Hugging Face hub can be reached from here, through a proxy where one is set."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    address = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or os.environ.get("HF_ENDPOINT")
    parsed = urlparse(address or "https://huggingface.co")
    try:
        with socket.create_connection((parsed.hostname or "", parsed.port or 443), timeout=PATIENCE):
            return True
    except OSError:
        return False
