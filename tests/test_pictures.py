"""Pictures of every mode as they should be seen: bits, floats, transparency, orientation, pages, colour."""

import numpy as np
import pytest
from PIL import Image as PIL

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.base.modalities import build_modalities
from generalist.tokenizers_mod.vision.image import Image
from generalist.tokenizers_mod.vision.thermal import Thermal
from generalist.tokenizers_mod.vision.xray import XRay

RAMP = np.tile(np.linspace(0, 1, 32), (32, 1))


def seen(path, **settings):
    return Image(**settings).read(path).numpy()


@pytest.mark.parametrize(
    ("array", "low", "high"),
    [
        (RAMP.astype(np.float32), 0.0, 1.0),
        ((RAMP * 0.5).astype(np.float32), 0.0, 0.5),
        ((RAMP * 1000).astype(np.float32), 0.0, 1.0),
        ((RAMP * 3 - 1).astype(np.float32), 0.0, 1.0),
        ((290 + RAMP * 20).astype(np.float32), 0.0, 1.0),
        (np.rint(RAMP * 248).astype(np.float32), 0.0, 248 / 255),
        (np.rint(RAMP * 248).astype(np.int32), 0.0, 248 / 255),
        (np.rint(RAMP * 4000 - 1000).astype(np.int32), 0.0, 1.0),
        (np.rint(RAMP * 2**30).astype(np.int32), 0.0, 1.0),
        (np.rint(RAMP * 32768).astype(np.uint16), 0.0, 32768 / 65535),
    ],
)
def test_pictures_of_many_bits_keep_their_ramp(tmp_path, array, low, high):
    PIL.fromarray(array).save(tmp_path / "ramp.tif")
    expected = low + (high - low) * RAMP
    for channels in (1, 3):
        found = seen(tmp_path / "ramp.tif", channels=channels)
        assert found.shape == (channels, 32, 32)
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=0.003)


def test_sixteen_bits_of_a_png_and_arrays_in_files(tmp_path):
    PIL.fromarray(np.full((8, 8), 32768, np.uint16)).save(tmp_path / "grey.png")
    assert seen(tmp_path / "grey.png").mean() == pytest.approx(0.5, abs=1e-3)
    np.save(tmp_path / "a.npy", np.full((8, 8, 3), 128.0))
    assert seen(tmp_path / "a.npy").mean() == pytest.approx(128 / 255)
    np.save(tmp_path / "b.npy", RAMP * 4000)
    np.testing.assert_allclose(seen(tmp_path / "b.npy")[0], RAMP, atol=1e-6)
    (tmp_path / "c.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match=r"c\.npy"):
        seen(tmp_path / "c.npy")
    PIL.fromarray(np.array([[0.5, np.nan]], np.float32)).save(tmp_path / "gap.tif")
    with pytest.raises(UserError, match="1 of 2 values are NaN"):
        seen(tmp_path / "gap.tif")


def icon(mode: str, path) -> None:
    """A black square on nothing."""
    held = np.zeros((32, 32, 4), np.uint8)
    held[8:24, 8:24, 3] = 255
    if mode == "P":
        picture = PIL.new("P", (32, 32), 0)
        picture.putpalette([0, 0, 0] * 256)
        picture.paste(1, (8, 8, 24, 24))
        picture.save(path, transparency=0)
    else:
        PIL.fromarray(held).convert(mode).save(path)


@pytest.mark.parametrize(
    ("mode", "form"), [("RGBA", "png"), ("LA", "png"), ("P", "png"), ("P", "gif"), ("RGBA", "webp")]
)
def test_what_is_transparent_is_drawn_on_white_or_as_said(tmp_path, mode, form):
    icon(mode, tmp_path / f"icon.{form}")
    for channels in (1, 3):
        found = seen(tmp_path / f"icon.{form}", channels=channels)
        assert found[:, 16, 16].max() < 0.02 and found[:, 0, 0].min() > 0.98
        assert found.mean() == pytest.approx(0.75, abs=0.01)
    assert seen(tmp_path / f"icon.{form}", background=0.5)[:, 0, 0].mean() == pytest.approx(0.5, abs=0.01)


def test_half_transparent_colours_of_arrays_are_mixed_with_the_background():
    array = np.zeros((8, 6, 4), np.uint8)
    array[..., 0], array[..., 3] = 255, 51  # a fifth of red
    np.testing.assert_allclose(Image().read(array)[:, 0, 0], [1.0, 0.8, 0.8], atol=1e-6)
    with pytest.raises(UserError, match="background is 2"):
        Image(background=2)


def test_orientation_colour_spaces_and_pages(tmp_path):
    exif = PIL.Exif()
    exif[0x0112] = 6
    half = np.zeros((20, 40, 3), np.uint8)
    half[:, :20] = 255
    PIL.fromarray(half).save(tmp_path / "turned.jpg", exif=exif.tobytes(), quality=98)
    upright = seen(tmp_path / "turned.jpg")
    assert upright.shape == (3, 40, 20) and upright[:, :20].mean() > 0.98 and upright[:, 20:].mean() < 0.02
    red = PIL.new("RGB", (8, 8), (255, 0, 0))
    red.convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    red.convert("P").save(tmp_path / "p.png")
    for name in ("c.jpg", "p.png"):
        np.testing.assert_allclose(seen(tmp_path / name).mean((1, 2)), [1, 0, 0], atol=0.02)
    frames = [PIL.new("RGB", (8, 8), c) for c in ("black", "white", "white")]
    for form in ("gif", "tif"):
        frames[0].save(tmp_path / f"many.{form}", save_all=True, append_images=frames[1:])
        assert seen(tmp_path / f"many.{form}").max() == 0


def test_pictures_have_colour_by_default_and_saved_grey_settings_stay_grey():
    picture = PIL.new("RGB", (8, 8), (255, 0, 0))
    np.testing.assert_allclose(Image(size=8, patch=4).read(picture).mean((1, 2)), [1, 0, 0])
    built = build_modalities({"image": {"size": 8, "patch": 4, "channels": 1, "mean": 0.5, "std": 0.5}})
    assert built["image"].read(picture).shape == (1, 8, 8)
    assert Image().read(np.zeros((8, 8), np.uint8)).shape == (3, 8, 8)
    assert (Thermal().channels, XRay().channels) == (1, 1)
