"""Films read from files, the frames that are asked for."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.base.files import check_regular
from generalist.data.base.limits import MB, limits, over
from generalist.data.media.pictures import BYTES
from generalist.tokenizers_mod.base.views import spread
from generalist.tokenizers_mod.vision.image import read_image

CLIPS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".mpg", ".mpeg", ".m4v")


def read_clip(path: Path, frames: int, channels: int) -> Tensor:
    """At most `frames` frames of a video file (0 = all), evenly spread: Float[T, C, H, W] in 0..1.

    Only the chosen frames are kept, so a long film costs time and no memory. UserError: no such file, no PyAV, broken,
    frames too large, or more of them than a tensor should hold.
    """
    try:
        import av
    except ImportError as error:
        raise UserError(f"{path}: video files need PyAV; pip install 'generalist-encoder[video]'") from error
    check_regular(path, "video")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            count = sum(1 for packet in container.demux(stream) if packet.size)
            chosen = set(spread(count, frames))
            pixels = stream.codec_context.width * stream.codec_context.height
            if pixels * len(chosen) * BYTES > limits().clip_mb * MB:
                size = f"{pixels * len(chosen) * BYTES / MB:,.0f} MB decoded; set `sample` for fewer"
                raise over(f"video {path}", "clip_mb", f"{len(chosen)} frames of {pixels} pixels are too many, {size}")
            container.seek(0)
            decoded = enumerate(container.decode(stream))
            pictures = [read_image(frame.to_image(), channels) for i, frame in decoded if i in chosen]
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"video {path}: cannot be decoded ({error}); is it a video and complete?") from error
    if not pictures:
        raise UserError(f"video {path}: no frame in it")
    return torch.stack(pictures)
