"""Hostile and broken model, feature and configuration files: refused, named, and nothing in them runs.

Figures that are printed go into docs/reliability.md.
"""

import ast
import io
import json
import os
import pickle
import random
import subprocess
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save as safetensors_bytes

from momentkit.convert.checkpoint import read_checkpoint
from momentkit.convert.encoders import import_encoder
from momentkit.core.config import read_toml
from momentkit.core.contract import FeatureContract, StreamContract
from momentkit.core.errors import ConfigError, DataError, FeatureError, MomentkitError, WeightsError
from momentkit.core.types import VideoFeatures
from momentkit.core.weights import WeightsCard, checksum, read_weights, save_weights
from momentkit.data.annotations import validate_annotations
from momentkit.features.store import read_contract, read_video_stream, write_features
from momentkit.models import registry
from momentkit.models.registry import create_model, list_models
from momentkit.predict.encoded import EncodedVideo
from momentkit.predict.weights import read_grounder_weights
from momentkit.train.checkpoint import Progress, load_state, save_state
from momentkit.train.run_config import parse_run

SOURCE = Path(read_toml.__code__.co_filename).parents[1]
STREAM = StreamContract(encoder="toy", layer="x", dim=6)
CONTRACT = FeatureContract(video=(STREAM,), text=STREAM, clip_length_s=1.0)
SIZES = {"hidden": 16, "heads": 2, "video_dim": CONTRACT.video_dim, "text_dim": 6}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("moment_detr", **SIZES)


def written(path, model, tensors=None, /, **changes):
    card = WeightsCard(model="moment_detr", options=asdict(model.config), features=CONTRACT)
    return save_weights(path, tensors or model.state_dict(), card.model_copy(update=changes))


# M1


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, what, *arguments):
        self.call = what, arguments

    def __reduce__(self):
        return self.call


def evil_bytes(canary):
    calls = [
        (os.mkdir, str(canary)),
        (os._exit, 7),
        (exec, f"import socket; socket.socket(); open({str(canary)!r}, 'w')"),
    ]
    for what, argument in calls:
        thing = Evil(what, argument)
        buffer = io.BytesIO()
        torch.save({"model": {"a": torch.ones(2)}, "x": thing}, buffer)
        yield pickle.dumps(thing)
        yield buffer.getvalue()
        buffer = io.BytesIO()
        np.savez(buffer, features=np.array([[thing]], object), allow_pickle=True)
        yield buffer.getvalue()
        yield pickle.dumps(thing, protocol=0)
    yield f'!!python/object/apply:os.mkdir ["{canary}"]\n'.encode()
    yield f'x = !!python/object/apply:os.mkdir ["{canary}"]\n'.encode()


def doors(folder, data):
    """Every function that takes a file from a user -> a path of the ending it reads."""
    endings = {
        read_weights: "a.safetensors",
        read_grounder_weights: "b.safetensors",
        EncodedVideo.load: "c.safetensors",
        read_checkpoint: "d.pt",
        lambda path: import_encoder(path, "slowfast", folder / "out.safetensors"): "e.pkl",
        lambda path: import_encoder(path, "cnn14", folder / "out.safetensors"): "f.pth",
        read_video_stream: "g.npz",
        lambda path: read_video_stream(path.with_suffix("")): "h.pt",
        lambda path: read_contract(path.parent): "contract.json",
        read_toml: "i.toml",
    }
    for door, name in endings.items():
        (folder / name).write_bytes(data)
        yield door, folder / name
    (folder / "state-000000001.safetensors").write_bytes(data)
    yield load_state, folder


def test_m1_code_in_a_file_is_refused_at_every_door(tmp_path):
    canary, tried = tmp_path / "canary", 0
    for number, data in enumerate(evil_bytes(canary)):
        folder = tmp_path / str(number)
        folder.mkdir()
        for door, path in doors(folder, data):
            with pytest.raises(MomentkitError):
                door(path)
            tried += 1
    assert tried == 14 * 11 and not canary.exists()
    assert not list(tmp_path.rglob("out.safetensors"))


# M2


def test_m2_nothing_that_can_run_a_file_is_imported_outside_convert():
    runs_code = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "jsonpickle"}
    hits, files = [], sorted(SOURCE.rglob("*.py"))
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("builtins.eval", "builtins.exec", "os.popen", "torch.jit.load"):
                names.append("pickle")
            if path.parent.name != "convert":
                hits += [f"{path.name}: {name}" for name in names if name.split(".")[0] in runs_code]
    assert len(files) > 100 and hits == []


# M3


def safetensors_with(header, data=b"\0" * 16, size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(4,), offsets=(0, 16)):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


MALFORMED = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "header longer than the file": safetensors_with(entry(), size=10**6),
    "header of an exabyte": safetensors_with(entry(), size=2**60),
    "no JSON": safetensors_with(b"{nonsense"),
    "not UTF-8": safetensors_with(b'{"\xff\xfe": 1}'),
    "a list": safetensors_with([1, 2]),
    "unknown type": safetensors_with(entry(dtype="F33")),
    "size other than shape": safetensors_with(entry(shape=(5,))),
    "negative shape": safetensors_with(entry(shape=(-4,))),
    "end before start": safetensors_with(entry(offsets=(16, 0))),
    "beyond the file": safetensors_with(entry(shape=(400,), offsets=(0, 1600))),
    "a hole": safetensors_with(entry(shape=(2,), offsets=(8, 16))),
    "overlap": safetensors_with(entry() | {"b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
    "bytes left over": safetensors_with(entry(), data=b"\0" * 32),
    "shape that overflows": safetensors_with(entry(shape=(2**40, 2**40))),
}


def signed(tensors):
    """A file whose card and checksum are right, whatever it holds."""
    text = json.dumps(WeightsCard(model="x").model_dump(mode="json"))
    metadata = {"momentkit": text, "sha256": checksum(text, dict(sorted(tensors.items())))}
    return safetensors_bytes(tensors, metadata)


def test_m3_malformed_and_cut_weights_are_refused(tmp_path, model):
    cases = dict(MALFORMED)
    cases["zero size"] = signed({"a": torch.ones(2), "b": torch.ones(0, 2**60)})
    for name, number in (("not a number", torch.nan), ("infinite", torch.inf)):
        cases[name] = signed({"a": torch.tensor([1.0, number])})
    cases["no card"] = safetensors_bytes({"a": torch.ones(2)})
    whole = written(tmp_path / "whole.safetensors", model).read_bytes()
    cases |= {f"cut to {size}": whole[:size] for size in np.linspace(0, len(whole) - 1, 111).astype(int)}
    path, accepted = tmp_path / "a.safetensors", []
    for name, data in cases.items():
        path.write_bytes(data)
        try:
            read_weights(path)
            accepted.append(name)
        except WeightsError as error:
            assert str(path) in str(error)
    assert accepted == [] and len(cases) >= 14 + 111
    path.write_bytes(signed({"a": torch.ones(2)}))
    read_weights(path)  # what the cases differ from is accepted


# M4


def flipped(data, place, bit):
    broken = bytearray(data)
    broken[place] ^= 1 << bit
    return bytes(broken)


def test_m4_a_flipped_bit_anywhere_is_noticed(tmp_path, model):
    few = dict(list(model.state_dict().items())[:3])
    weights = written(tmp_path / "a.safetensors", model, few)
    state = save_state(tmp_path, few, Progress(step=1))
    rng, missed = random.Random(0), []
    for path, read in ((weights, read_weights), (state, lambda _: load_state(tmp_path))):
        whole = path.read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        places = [rng.randrange(header) for _ in range(100)]  # size, names, card, checksum
        places += [rng.randrange(header, len(whole)) for _ in range(100)]  # numbers
        for place in places:
            path.write_bytes(flipped(whole, place, rng.randrange(8)))
            try:
                read(path)
                missed.append((path.name, place))
            except MomentkitError:
                pass
        path.write_bytes(whole)
        read(path)
    assert missed == []


# M5


def test_m5_what_does_not_fit_is_listed_in_one_message(tmp_path, model):
    state = model.state_dict()
    names = sorted(name for name, tensor in state.items() if tensor.ndim == 2 and len(set(tensor.shape)) == 2)
    missing, turned, *_ = names
    changed = {name: tensor for name, tensor in state.items() if name != missing}
    changed |= {"misnamed.weight": torch.ones(2), turned: state[turned].T.contiguous()}
    path = written(tmp_path / "a.safetensors", model, changed)
    with pytest.raises(WeightsError) as caught:
        read_grounder_weights(path).build_model(torch.device("cpu"))
    for said in (f"{missing} is missing", "misnamed.weight is not part", f"{turned} has shape"):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"hidden": 32}, {"encoder_layers": 1}, {"text_dim": 7}, {"queries": 3}], ids=str
)
def test_m5_weights_of_other_options_are_refused(tmp_path, model, options):
    path = written(tmp_path / "a.safetensors", model, options=asdict(model.config) | options)
    with pytest.raises(WeightsError, match="does not fit"):
        read_grounder_weights(path).build_model(torch.device("cpu"))


def test_m5_the_configuration_of_another_model_is_refused_and_half_precision_is_not(tmp_path, model):
    other = {"model": "qd_detr", "options": asdict(create_model("qd_detr", **SIZES).config)}
    with pytest.raises(WeightsError, match="does not fit"):
        read_grounder_weights(written(tmp_path / "a.safetensors", model, **other)).build_model(
            torch.device("cpu")
        )
    half = {name: tensor.half() for name, tensor in model.state_dict().items()}
    path = written(tmp_path / "half.safetensors", model, half)
    built = read_grounder_weights(path).build_model(torch.device("cpu"))
    assert all(torch.equal(built.state_dict()[name], half[name].float()) for name in half)


# M6

TOO_MUCH = [
    {"hidden": 10**9},
    {"hidden": 10**6, "heads": 1},
    {"video_dim": 10**12},
    {"encoder_layers": 10**6},
    {"feed_forward": 2**20, "hidden": 2**20},
]
WRONG = [
    {"hidden": -256},
    {"hidden": 0},
    {"encoder_layers": -1},
    {"dropout": float("nan")},
    {"hidden": "256"},
    {"hidden": True},
    {"hidden": 25.5},
    {"hiden": 256},
]
GREEDY = """
import json, resource, sys, torch
from momentkit.core.errors import ConfigError
from momentkit.models.registry import create_model
create_model("moment_detr", hidden=16, heads=2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for options in json.loads(sys.argv[1]):
    try:
        create_model("moment_detr", **options)
        sys.exit(f"{options} was built")
    except ConfigError:
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_m6_a_model_that_is_too_large_is_refused_before_memory_is_asked_for():
    run = subprocess.run(
        [sys.executable, "-c", GREEDY, json.dumps(TOO_MUCH)], capture_output=True, text=True, check=True
    )
    print(f"memory at refusal: {float(run.stdout):.1f} MB")
    assert float(run.stdout) < 10


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_m6_an_option_that_cannot_be_is_refused(options):
    with pytest.raises(ConfigError):
        create_model("moment_detr", **options)


@pytest.mark.parametrize("name", list_models())
def test_m6_planning_a_model_moves_no_generator(name):
    config, model = registry._MODELS[name]
    before = torch.get_rng_state()
    registry._check_size(config(), model, name)
    assert torch.equal(torch.get_rng_state(), before)


def test_m6_a_configuration_file_that_cannot_be_is_refused(tmp_path):
    path = tmp_path / "run.toml"
    for text in ("[model]\nhidden = 1\nhidden = 2\n", "hidden = ", "\xff", "[model]\n[model]\n"):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(ConfigError, match=r"run\.toml: not TOML"):
            read_toml(path)
    path.write_text("[modle]\nname = 'moment_detr'\n")
    with pytest.raises(ConfigError):
        parse_run(read_toml(path), str(path))


# M7 and M9; the rest of M7 is in tests/unit/test_features_store.py, of M8 in test_data_dataset.py


def test_m9_what_is_no_file_is_refused_and_never_read_without_end(tmp_path):
    for name in ("w.safetensors", "d.ckpt", "v.npy"):
        (tmp_path / name).symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "p.safetensors")
    os.mkfifo(tmp_path / "q.npz")
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("w.safetensors", "p.safetensors", "folder.safetensors"):
        with pytest.raises(WeightsError, match="no file"):
            read_weights(tmp_path / name)
        with pytest.raises((FeatureError, DataError)):
            EncodedVideo.load(tmp_path / name)
    with pytest.raises(WeightsError, match="no file"):
        read_checkpoint(tmp_path / "d.ckpt")
    for name in ("v", "q", "v.npy"):
        with pytest.raises(FeatureError, match="no feature file"):
            read_video_stream(tmp_path / name)


def test_m9_an_array_that_is_there_twice_is_refused(tmp_path):
    arrays = [np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)]
    with zipfile.ZipFile(tmp_path / "v.npz", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for array in arrays:
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr("features.npy", buffer.getvalue())
    with pytest.raises(FeatureError, match="'features' twice"):
        read_video_stream(tmp_path / "v")


# M10

CONVERTER = """
import sys
outside = []
allowed = sys.argv[1]

def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        mode, flags = arguments[1] or "", arguments[2] or 0
        if (set(mode) & set("wax+") or flags & 3) and not arguments[0].startswith((allowed, "/dev/null")):
            outside.append(f"{event} {arguments[0]}")
    elif event.startswith(("socket.", "os.system", "os.exec", "os.mkdir", "subprocess.")):
        if not (event == "os.mkdir" and str(arguments[0]).startswith(allowed)):
            outside.append(f"{event} {arguments}")

import torch
from momentkit.convert.checkpoint import convert
from momentkit.convert.encoders import import_encoder
from momentkit.core.errors import WeightsError
sys.addaudithook(watch)
for path in sys.argv[2:]:
    for call in (
        lambda: convert(path, "flashvtg", allowed + "/out.safetensors"),
        lambda: import_encoder(path, "slowfast", allowed + "/out.safetensors"),
        lambda: import_encoder(path, "cnn14", allowed + "/out.safetensors"),
    ):
        try:
            call()
            sys.exit(f"{path} was converted")
        except WeightsError:
            pass
print(outside)
"""


def test_m10_converting_an_evil_file_touches_nothing_and_calls_nobody(tmp_path):
    allowed, canary = tmp_path / "out", tmp_path / "canary"
    allowed.mkdir()
    paths = []
    for number, data in enumerate(evil_bytes(canary)):
        paths.append(tmp_path / f"{number}.ckpt")
        paths[-1].write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-c", CONVERTER, str(allowed), *map(str, paths)], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout.strip(), list(allowed.iterdir())) == (0, "[]", []), run.stderr
    assert not canary.exists()


# M11


def test_m11_what_is_saved_loaded_and_saved_again_is_the_same_bytes(tmp_path, model):
    first = written(tmp_path / "a.safetensors", model)
    card, tensors = read_weights(first)
    assert save_weights(tmp_path / "b.safetensors", tensors, card).read_bytes() == first.read_bytes()

    rows_TD = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    features = VideoFeatures(features_TD=rows_TD, clip_length_s=1.0, duration_s=4.5, contract=CONTRACT)
    first = EncodedVideo(name="film", features=features).save(tmp_path / "c.safetensors")
    again = EncodedVideo.load(first).save(tmp_path / "d.safetensors")
    assert again.read_bytes() == first.read_bytes()

    first = write_features(tmp_path / "e" / "v", rows_TD, STREAM)
    again = write_features(tmp_path / "f" / "v", read_video_stream(first), STREAM)
    assert again.read_bytes() == first.read_bytes()

    first = save_state(tmp_path / "g", tensors, Progress(step=2, best_metrics={"x": 1.5}))
    state, progress, _ = load_state(tmp_path / "g")
    assert save_state(tmp_path / "h", state, progress).read_bytes() == first.read_bytes()


# M12

LOADER = """
import resource, sys
from momentkit.core.weights import WeightsCard, read_weights, save_weights
import torch
if sys.argv[2] == "write":
    tensors = {"large": torch.ones(40_000_000), **{str(i): torch.ones(1_000_000) for i in range(10)}}
    save_weights(sys.argv[1], tensors, WeightsCard(model="x"))
else:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    card, tensors = read_weights(sys.argv[1])
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_m12_reading_200_mb_of_weights_takes_little_more_than_they_are(tmp_path):
    path, said = tmp_path / "large.safetensors", ""
    for what in ("write", "read"):
        run = [sys.executable, "-c", LOADER, str(path), what]
        said = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    ratio = int(said) / path.stat().st_size
    print(f"peak / size: {ratio:.2f}")
    assert path.stat().st_size >= 200_000_000 and ratio <= 1.3


# M13; the kinds one by one are in tests/unit/test_data_annotations.py


def test_m13_planted_faults_are_found_by_line_and_counted(tmp_path):
    good = {"qid": 1, "query": "a dog", "duration": 10, "vid": "v", "relevant_windows": [[1, 3]]}
    planted = {
        "half a line": b'{"qid": 1, "que',
        "NaN": json.dumps(good).replace("10", "NaN").encode(),
        "end before start": json.dumps(good | {"relevant_windows": [[3, 1]]}).encode(),
        "past the end": json.dumps(good | {"relevant_windows": [[8, 11]]}).encode(),
        "empty query": json.dumps(good | {"query": ""}).encode(),
        "query of 10 MB": json.dumps(good | {"query": "a" * 10**7}).encode(),
        "latin-1": json.dumps(good | {"query": "Bär"}, ensure_ascii=False).encode("latin-1"),
        "UTF-16": json.dumps(good).encode("utf-16-le"),
        "mark inside": b'{"qid": 1, \xef\xbb\xbf "query": 1}',
    }
    path = tmp_path / "rows.jsonl"
    fine = [json.dumps(good | {"qid": number}).encode() for number in range(len(planted))]
    lines = [line for pair in zip(fine, planted.values(), strict=True) for line in pair]
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines) + b"\n" + fine[0])
    report = validate_annotations(path)
    assert [problem.line for problem in report.problems] == list(range(2, 2 * len(planted) + 1, 2))
    assert all(f"rows.jsonl:{problem.line}: " in problem.message for problem in report.problems)
    assert sum(report.counts.values()) == len(planted)
    assert len(report.queries) == len(planted) + 1 and report.repeated_qids == 1
