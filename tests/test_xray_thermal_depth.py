"""X-ray, thermal and depth pictures: windows, degrees and metres come out as documented, bad ones are named."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as PIL

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.vision.depth import Depth
from generalist.tokenizers_mod.vision.thermal import Thermal
from generalist.tokenizers_mod.vision.xray import XRay

CLASSES = (XRay, Thermal, Depth)


def test_a_window_cuts_the_grey_values_of_deep_radiographs():
    array = np.array([[0, 500, 1000], [1500, 2000, 4095]], dtype=np.uint16)
    value = XRay(window=[1000.0, 1000.0]).read(array)
    torch.testing.assert_close(value[0], torch.tensor([[0, 0, 0.5], [1, 1, 1]]))
    torch.testing.assert_close(XRay(window=[1000.0, 1000.0], invert=True).read(array), 1 - value)


def test_without_a_window_the_quantiles_become_black_and_white():
    array = np.arange(1000.0).reshape(20, 50) + 3000
    value = XRay(clip=0.1).read(array)
    assert (value == 0).float().mean() == pytest.approx(0.1, abs=0.002) and value.max() == 1
    assert XRay().read(np.full((3, 5), 7.0)).unique().tolist() == [0.5]


def test_eight_bit_radiographs_are_grey_levels(shared):
    with np.load(shared / "data/pneumonia_xray28/pneumonia28.npz") as file:
        array = file["x_train"][0]
    np.testing.assert_allclose(XRay().read(array)[0], array / 255, atol=1e-6)


def test_dicom_files_bring_their_window_and_polarity(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    array = np.array([[0, 50, 100], [150, 200, 250]], dtype=np.uint16)
    file = FileDataset("a.dcm", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    file.Rows, file.Columns, file.SamplesPerPixel = 2, 3, 1
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
    file.PhotometricInterpretation, file.WindowCenter, file.WindowWidth = "MONOCHROME1", 100, 100
    file.PixelData = array.tobytes()
    file.save_as(tmp_path / "a.dcm")
    value = XRay().read(tmp_path / "a.dcm")
    torch.testing.assert_close(value[0], torch.tensor([[1, 1, 0.5], [0, 0, 0]]))


def test_temperatures_lie_on_a_fixed_scale_in_every_unit():
    thermal = Thermal(low=0, high=100)
    degrees = np.array([[-5.0, 0.0, 25.0], [50.0, 100.0, 140.0]])
    expected = torch.tensor([[[0, 0, 0.25], [0.5, 1, 1]]])
    torch.testing.assert_close(thermal.read(degrees), expected)
    torch.testing.assert_close(Thermal(low=0, high=100, kelvin=True).read(degrees + 273.15), expected)
    counts = np.round((degrees + 273.15) * 100).astype(np.uint16)
    torch.testing.assert_close(Thermal(low=0, high=100, count_kelvin=0.01).read(counts), expected)
    grey = PIL.fromarray(np.full((4, 6), 51, np.uint8))
    assert thermal.read(grey).unique().item() == pytest.approx(0.2)


def test_depth_is_disparity_and_missing_depth_is_marked():
    depth = Depth(near=0.5, far=10)
    value = depth.read(np.array([[0.5, 10.0, 0.0], [1.0, np.nan, 99.0]]))
    torch.testing.assert_close(value[0], torch.tensor([[1, 0, 0], [(1 - 0.1) / (2 - 0.1), 0, 0]]))
    assert value[1].tolist() == [[1, 1, 0], [1, 0, 1]]
    linear = Depth(near=1, far=3, inverse=False).read(np.array([[1.0, 2.0, 3.0]]))
    assert linear[0].tolist() == [[0, 0.5, 1]]


def test_millimetres_and_16_bit_pictures_are_metres(tmp_path):
    array = np.array([[1000, 2000, 0], [500, 4000, 8000]], dtype=np.uint16)
    PIL.fromarray(array).save(tmp_path / "d.png")
    depth = Depth()
    expected = depth.read(np.where(array > 0, array / 1000, 0.0))
    torch.testing.assert_close(depth.read(array), expected)
    torch.testing.assert_close(depth.read(tmp_path / "d.png"), expected)


def test_patches_without_any_depth_are_left_out():
    array = np.ones((16, 32))
    array[:, :8] = 0
    span = (depth := Depth(size=32, patch=8)).span(depth.read(array))
    assert span.grid == (2, 4) and span.mask.tolist() == [False, True, True, True] * 2


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("raw", [np.zeros((0, 3)), np.zeros((2, 3, 5, 7)), np.array([["a"]]), "nowhere.png"])
def test_bad_pictures_are_named(kind, raw):
    with pytest.raises(UserError, match=kind.name + "|image"):
        kind().read(raw)


def test_nan_is_refused_where_nothing_marks_it():
    for kind in (XRay, Thermal):
        with pytest.raises(UserError, match="1 of 6"):
            kind().read(np.array([[np.nan, 1, 2], [3, 4, 500.0]]))
    with pytest.raises(UserError, match="every depth is missing"):
        Depth().read(np.full((2, 3), np.nan))


def test_truncated_files_and_colour_depth_end_in_one_line(tmp_path):
    PIL.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    for kind in CLASSES:
        with pytest.raises(UserError, match=r"cannot be read") as caught:
            kind().read(tmp_path / "b.png")
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="colour picture"):
        Depth().read(tmp_path / "a.png")


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
    ),
    st.sampled_from(CLASSES),
)
def test_any_finite_array_gives_finite_tokens_or_an_error(array, kind):
    modality = kind(size=8, patch=4)
    try:
        value = modality.read(array)
    except UserError as error:
        assert "missing" in str(error)
        return
    span = modality.span(value)
    assert float(value.min()) >= 0 and float(value.max()) <= 1
    assert modality.build(8)(span.data).isfinite().all()
