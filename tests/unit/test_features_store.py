"""Feature files: read as published, refused when they lie, written with their contract."""

import io
import json
import os
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from momentkit.core.contract import StreamContract
from momentkit.core.errors import FeatureError, FeatureMismatchError
from momentkit.features.store import (
    join_streams,
    l2_normalise,
    prepare_rows,
    read_contract,
    read_headers,
    read_text,
    read_video_stream,
    time_channels,
    write_features,
)

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((5, 3)).astype(np.float32)
CONTRACT = StreamContract(encoder="tiny", layer="out", dim=3, fps=1.0, dtype="float16")


def header_bytes(shape: str, descr: str = "<f4", order: str = "False") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"
    text += " " * (64 - (10 + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_float_width_byte_order_and_memory_order_is_read_as_the_same_numbers(tmp_path, dtype, order):
    rows = ROWS.astype(np.float16)  # exact in all of them
    np.save(tmp_path / "v.npy", np.asarray(rows, dtype, order=order))
    np.savez(tmp_path / "w.npz", features=np.asarray(rows, dtype, order=order))
    for name in ("v", "v.npy", "w", "w.npz"):
        read = read_video_stream(tmp_path / name)
        assert read.dtype == np.float32
        assert read.flags.c_contiguous
        np.testing.assert_array_equal(read, rows)


def test_an_id_with_dots_is_not_taken_for_an_ending(tmp_path):
    np.savez(tmp_path / "abc_60.0_210.0.npz", features=ROWS)
    np.testing.assert_array_equal(read_video_stream(tmp_path / "abc_60.0_210.0"), ROWS)


def test_a_compressed_npz_is_read(tmp_path):
    np.savez_compressed(tmp_path / "v.npz", features=ROWS)
    np.testing.assert_array_equal(read_video_stream(tmp_path / "v"), ROWS)


def test_pooled_text_becomes_one_row(tmp_path):
    np.savez(tmp_path / "q.npz", last_hidden_state=ROWS, pooler_output=ROWS[0])
    assert read_text(tmp_path / "q").shape == (5, 3)
    assert read_text(tmp_path / "q", "pooler_output").shape == (1, 3)


@pytest.mark.parametrize(
    "array",
    [
        np.float32(1.0),
        np.zeros(3, np.float32),
        np.zeros((2, 2, 2), np.float32),
        np.zeros((0, 4), np.float32),
        np.zeros((4, 0), np.float32),
        np.zeros((4, 3), np.int64),
        np.zeros((4, 3), bool),
        np.zeros((4, 3), np.complex64),
        np.array([["a", "b"]]),
        np.array([[1.0, np.nan]], np.float32),
        np.array([[1.0, -np.inf]], np.float32),
        np.array([[1e300, 1.0]]),
        np.zeros((2, 2), [("a", "<f4")]),
    ],
    ids=lambda array: f"{getattr(array, 'dtype', '')}{getattr(array, 'shape', '')}",
)
def test_what_is_not_rows_of_finite_numbers_is_refused_by_name(tmp_path, array):
    np.save(tmp_path / "bad.npy", array)
    np.savez(tmp_path / "worse.npz", features=array)
    for name in ("bad", "worse"):
        with pytest.raises(FeatureError, match=name):
            read_video_stream(tmp_path / name)


def test_an_object_array_is_refused_and_never_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    array = np.array([[Evil()]], object)
    np.save(tmp_path / "bad.npy", array, allow_pickle=True)
    np.savez(tmp_path / "worse.npz", features=array)
    for name in ("bad", "worse"):
        with pytest.raises(FeatureError, match=name):
            read_video_stream(tmp_path / name)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("ending", [".pth", ".pkl", ".h5", ".hdf5"])
def test_formats_that_run_code_are_refused_with_a_way_out(tmp_path, ending):
    (tmp_path / f"v{ending}").write_bytes(b"\x80\x02}q\x00.")
    for name in ("v", f"v{ending}"):
        with pytest.raises(FeatureError, match="convert it once"):
            read_video_stream(tmp_path / name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.bfloat16])
def test_a_saved_tensor_is_read_without_unpickling(tmp_path, dtype):
    rows = torch.from_numpy(ROWS).to(dtype)
    torch.save(rows, tmp_path / "v.pt")
    torch.save(rows[2:].clone().requires_grad_(), tmp_path / "id_1.5.pt")
    torch.save(rows[2:], tmp_path / "part.pt")  # a view: the storage holds all rows
    np.testing.assert_array_equal(read_video_stream(tmp_path / "v"), rows.float())
    for name in ("id_1.5", "part"):
        np.testing.assert_array_equal(read_video_stream(tmp_path / name), rows[2:].float())
    assert read_headers(tmp_path / "v.pt")[""][0] == (5, 3)


def test_a_pickle_that_is_not_one_tensor_is_refused_and_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    rows = torch.from_numpy(ROWS)
    contents = {
        "evil": Evil(),
        "list": [rows],
        "dictionary": {"features": rows},
        "both": (rows, Evil()),
        "integers": rows.long(),
        "turned": rows.T,
        "scalar": rows[0, 0],
        "parameter": torch.nn.Parameter(rows),
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(FeatureError, match=f"{name}.*numpy.save"):
            read_video_stream(tmp_path / name)
    torch.save(rows, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(FeatureError, match="old"):
        read_video_stream(tmp_path / "old")
    assert not (tmp_path / "canary").exists()


def test_a_saved_tensor_that_claims_more_than_its_storage_is_refused(tmp_path):
    torch.save(torch.from_numpy(ROWS), tmp_path / "v.pt")
    with zipfile.ZipFile(tmp_path / "v.pt") as whole, zipfile.ZipFile(tmp_path / "lie.pt", "w") as lie:
        for name in whole.namelist():
            data = whole.read(name)
            lie.writestr(name, data.replace(b"K\x05K\x03\x86", b"K\xffK\x03\x86"))
    with pytest.raises(FeatureError, match=r"lie\.pt claims shape \(255, 3\)"):
        read_video_stream(tmp_path / "lie")


@pytest.mark.parametrize(
    ("shape", "held"),
    [("(3000000, 3000)", 0), ("(5, 3)", 40), ("(5, 3)", 100), ("(-1, -15)", 60), ("(5, 2**70)", 60)],
)
def test_a_header_that_claims_other_than_the_file_holds_is_refused_before_memory_is_asked_for(
    tmp_path, shape, held
):
    data = header_bytes(shape) + b"\0" * held
    (tmp_path / "lie.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "lies.npz", "w") as archive:
        archive.writestr("features.npy", data)
    for name in ("lie.npy", "lies.npz"):
        with pytest.raises(FeatureError, match="lie"):
            read_video_stream(tmp_path / name)


BOMB = """
import resource, sys
from momentkit.core.errors import FeatureError
from momentkit.features.store import read_video_stream
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_video_stream(sys.argv[1])
except FeatureError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


def test_a_small_file_that_inflates_beyond_the_limit_is_refused_within_ten_megabytes(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("features.npy", "w") as stream,
    ):
        stream.write(header_bytes("(286720, 256)"))
        for _ in range(70):
            stream.write(b"\0" * 4 * 1024**2)
    assert (tmp_path / "bomb.npz").stat().st_size < 3 * 1024**2
    run = subprocess.run(
        [sys.executable, "-c", BOMB, str(tmp_path / "bomb.npz")], capture_output=True, text=True, check=True
    )
    kilobytes, _, message = run.stdout.partition(" ")
    assert int(kilobytes) < 10 * 1024
    assert "inflates to" in message


def test_damaged_files_are_refused_or_read_as_finite_numbers(tmp_path):
    whole = {}
    for name, compressed in (("v.npz", False), ("z.npz", True)):
        buffer = io.BytesIO()
        (np.savez_compressed if compressed else np.savez)(buffer, features=ROWS)
        whole[name] = buffer.getvalue()
    buffer = io.BytesIO()
    np.save(buffer, ROWS)
    whole["v.npy"] = buffer.getvalue()
    buffer = io.BytesIO()
    torch.save(torch.from_numpy(ROWS), buffer)
    whole["v.pt"] = buffer.getvalue()
    refused = 0
    for name, data in whole.items():
        for number in range(120):
            broken = bytearray(data)
            if number % 3 == 0:
                del broken[RNG.integers(len(broken)) :]
            else:
                for place in RNG.integers(len(broken), size=number % 3):
                    broken[place] ^= 1 << RNG.integers(8)
            (tmp_path / name).write_bytes(broken)
            try:
                rows = read_video_stream(tmp_path / name)
                assert rows.dtype == np.float32
                assert np.isfinite(rows).all()
            except FeatureError as error:
                refused += 1
                assert name in str(error)
    assert refused > 200


def test_a_missing_file_or_key_says_what_there_is(tmp_path):
    np.savez(tmp_path / "v.npz", video=ROWS)
    with pytest.raises(FeatureError, match=r"no array 'features'; it holds video"):
        read_video_stream(tmp_path / "v")
    with pytest.raises(FeatureError, match=r"no feature file .*nobody"):
        read_video_stream(tmp_path / "nobody")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(FeatureError, match="no feature file"):
        read_video_stream(tmp_path / "folder")


def test_written_features_come_back_with_their_contract(tmp_path):
    path = write_features(tmp_path / "set" / "a_1.5", ROWS, CONTRACT)
    assert path.name == "a_1.5.npz"
    np.testing.assert_array_equal(read_video_stream(tmp_path / "set" / "a_1.5"), ROWS.astype(np.float16))
    assert read_contract(tmp_path / "set") == CONTRACT
    assert read_headers(path) == {"features": ((5, 3), "float16")}
    with np.load(path) as file:
        np.testing.assert_array_equal(file["features"], ROWS.astype(np.float16))


def test_writing_twice_gives_the_same_bytes(tmp_path):
    first = write_features(tmp_path / "a" / "v", ROWS, CONTRACT).read_bytes()
    assert write_features(tmp_path / "b" / "v", ROWS, CONTRACT).read_bytes() == first


def test_a_folder_takes_features_of_one_contract_only(tmp_path):
    write_features(tmp_path / "v", ROWS, CONTRACT)
    other = CONTRACT.model_copy(update={"layer": "pooled"})
    with pytest.raises(FeatureMismatchError, match="layer of the features is 'pooled', expected 'out'"):
        write_features(tmp_path / "w", ROWS, other)


def test_writing_refuses_what_reading_would(tmp_path):
    with pytest.raises(FeatureError, match="3 channels"):
        write_features(tmp_path / "v", ROWS[:, :2], CONTRACT)
    with pytest.raises(FeatureError, match="not finite"):
        write_features(tmp_path / "v", ROWS * 1e6, CONTRACT)  # beyond float16
    with pytest.raises(FeatureError, match="int8"):
        write_features(tmp_path / "v", ROWS, CONTRACT.model_copy(update={"dtype": "int8"}))
    assert not list(tmp_path.iterdir())


def test_a_damaged_contract_is_named(tmp_path):
    (tmp_path / "contract.json").write_text(json.dumps({"encoder": "x", "dim": 3}))
    with pytest.raises(FeatureError, match=r"contract\.json: layer"):
        read_contract(tmp_path)


def test_normalising_divides_by_the_length_plus_the_published_epsilon():
    rows = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    before = rows.copy()
    np.testing.assert_allclose(l2_normalise(rows), [[3 / 5.00001, 4 / 5.00001], [0, 0]], rtol=1e-7)
    np.testing.assert_array_equal(rows, before)
    assert prepare_rows(rows, "none") is rows
    with pytest.raises(FeatureError, match="normalisation 'l1'"):
        prepare_rows(rows, "l1")


def test_streams_are_cut_to_the_shortest_in_the_given_order():
    long, short = np.full((4, 1), 1.0, np.float32), np.full((3, 2), 2.0, np.float32)
    joined, cut = join_streams([long, short])
    np.testing.assert_array_equal(joined, [[1, 2, 2]] * 3)
    assert cut == (1, 0)


def test_time_channels_are_where_a_clip_starts_and_ends():
    np.testing.assert_array_equal(time_channels(4), [[0, 0.25], [0.25, 0.5], [0.5, 0.75], [0.75, 1]])
    assert time_channels(75).dtype == np.float32
