"""Saved stores: bit-identical again, refused where they do not fit or are damaged, whole whatever happens to a save."""

import json
import multiprocessing
import os
import signal
import uuid
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import safetensors.torch
import torch
from filelock import FileLock

from graphflow.kv import (
    BudgetError,
    KVConfig,
    KVShape,
    ModelIdentity,
    OperationStore,
    Rope,
    Scope,
    StateMode,
    StoreFormatError,
    StoreLockedError,
    StoreMismatchError,
)
from graphflow.kv.codecs import CODECS
from graphflow.kv.files import Folder
from graphflow.kv.manifest import parse, seal

ROPE = Rope(torch.tensor([1.0, 0.1]))
SHAPE = KVShape(layers=2, kv_heads=2, head_dim=4, dtype=torch.bfloat16)
MODEL = ModelIdentity("tiny", "f1n9e8", "70ce")
PROMPTS = {"solve": (5, 6, 7, 8, 9, 10), "check": (5, 11, 12, 13, 9), "ask": (5, 9)}
CONFIG = KVConfig(min_observations=3, exact_head=1, exact_rows=0.0, tracked_paths=64)
HELD = [("solve", ()), ("check", ("solve",))]
LEARNED = ("solve", ("solve", "check"))


def kv(seed: int, length: int) -> torch.Tensor:
    return torch.randn(SHAPE.of(length), generator=torch.Generator().manual_seed(seed))


def empty(config: KVConfig = CONFIG, model: ModelIdentity | None = MODEL, shape: KVShape = SHAPE) -> OperationStore:
    store = OperationStore(config, ROPE, shape, model=model)
    for index, (op, tokens) in enumerate(PROMPTS.items()):
        store.add_base(op, tokens, kv(index, len(tokens)))
    return store


def learn(store: OperationStore, rounds: int = 3, seed: int = 0) -> OperationStore:
    """Two paths that are materialised after three rounds, one that is still being learned, one operation too short."""
    for index in range(rounds):
        for op, path in HELD:
            store.observe(op, path, kv(100 + seed + index, len(PROMPTS[op])))
    store.observe(*LEARNED, kv(200 + seed, 6))
    store.observe("ask", (), kv(300, 2))
    return store


def load(location, **changes) -> OperationStore:
    return OperationStore.load(location, **{"rope": ROPE, "shape": SHAPE, "model": MODEL, **changes})


def served(store: OperationStore) -> dict:
    """What a store serves after every path that occurs here: exact bits of the shared pieces."""
    plans = {(op, path): store.plan(op, path) for op, path in (*HELD, LEARNED, ("ask", ()))}
    return {
        key: (
            [start for _, start in plan.pieces],
            plan.fallback,
            plan.shared and plan.shared.kv.view(torch.int16).flatten().tolist(),
        )
        for key, plan in plans.items()
    }


def tensor_file(folder: Path) -> Path:
    (file,) = folder.glob("tensors-*.safetensors")
    return file


@pytest.mark.parametrize("kind", ["plain", "file", "memory"])
def test_round_trip_is_exact(tmp_path, kind):
    location = {"plain": tmp_path / "a" / "b", "file": f"file://{tmp_path}/c", "memory": f"memory://{uuid.uuid4()}"}[
        kind
    ]
    store = learn(empty())
    assert store.materialised == set(HELD)
    assert store.learning == {LEARNED}
    store.save(location)
    again = load(location, config=CONFIG, prompts=PROMPTS)
    assert again.dropped == ()
    assert again.nbytes() == store.nbytes()
    assert served(again) == served(store)
    assert again.nbytes() == store.nbytes()
    assert again.unexplained() == store.unexplained()
    for key, shares in store.unexplained_by_layer().items():
        assert torch.equal(again.unexplained_by_layer()[key], shares)
    # Both go on learning alike: the moments, the traffic and the next pruning were saved too.
    for one in (store, again):
        learn(one, rounds=20, seed=1)
        one.observe(*LEARNED, kv(7, 6))
    assert again.materialised == store.materialised == {*HELD, LEARNED}
    assert served(again) == served(store)
    assert again.paths.dump() == store.paths.dump()
    # Saving again replaces it.
    again.save(location)
    assert load(location).materialised == {*HELD, LEARNED}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("scope", Scope)
def test_every_codec(tmp_path, codec, scope):
    store = learn(empty(replace(CONFIG, codec=codec, scope=scope)))
    store.save(tmp_path)
    again = load(tmp_path)
    assert again.config == store.config
    assert again.nbytes() == store.nbytes()
    assert again.materialised == set(HELD)
    assert served(again) == served(store)
    if scope is Scope.REQUEST:
        for op, path in HELD:
            exact = kv(9, len(PROMPTS[op]))
            one, other = (each.keep(op, path, PROMPTS[op], exact) for each in (store, again))
            assert one.nbytes == other.nbytes
            assert torch.equal(one.tensor(), other.tensor())


@pytest.mark.parametrize("mode", StateMode)
def test_every_mode(tmp_path, mode):
    store = learn(empty(replace(CONFIG, mode=mode)))
    store.save(tmp_path)
    again = load(tmp_path)
    assert again.nbytes() == store.nbytes()
    assert list(again) == sorted(store)
    # What another mode stored can be used by this one: bases are the same.
    if store.config.has_bases:
        other = load(tmp_path, config=replace(CONFIG, mode=StateMode.STATELESS))
        assert other.plan("solve", ()).shared is not None


def test_which_rows_run_again_is_saved(tmp_path):
    config = replace(CONFIG, exact_rows=0.25)
    store = learn(empty(config))
    before = store.plan("solve", ())
    assert sum(piece.length for piece, _ in before.pieces) == 4 - 1, "of the four stored tokens one runs again"
    store.save(tmp_path, moments=False)
    again = load(tmp_path, config=config).plan("solve", ())
    assert [start for _, start in again.pieces] == [start for _, start in before.pieces]
    for (piece, _), (other, _) in zip(again.pieces, before.pieces, strict=True):
        assert torch.equal(piece.tensor(), other.tensor())


def test_which_rows_run_again_is_learned_where_a_store_does_not_know(tmp_path):
    """A store that was saved without running any keeps its residuals when some are to run."""
    store = learn(empty(replace(CONFIG, exact_rows=0.0)))
    store.save(tmp_path)
    config = replace(CONFIG, exact_rows=0.25)
    again = load(tmp_path, config=config)
    assert again.plan("solve", ()).fallback and again.materialised == set(HELD)
    residual = again.nbytes().residual
    learn(again)
    assert sum(piece.length for piece, _ in again.plan("solve", ()).pieces) == 4 - 1
    assert again.nbytes().residual == residual, "the residual that was loaded stays"


def test_damaged_deviations_are_learned_again(tmp_path):
    config = replace(CONFIG, exact_rows=0.25)
    learn(empty(config)).save(tmp_path)
    flip(tmp_path, "deviations.1")
    with pytest.raises(StoreFormatError, match="deviations of 'solve'"):
        load(tmp_path, config=config)
    again = load(tmp_path, config=config, repair=True)
    assert len(again.dropped) == 1 and again.plan("solve", ()).fallback and not again.plan("check", ("solve",)).fallback


def test_without_moments(tmp_path):
    store = learn(empty())
    store.save(tmp_path, moments=False)
    again = load(tmp_path)
    assert again.learning == frozenset()
    assert again.nbytes().statistics == 8 * 4
    assert again.nbytes().residual == store.nbytes().residual


def test_files_are_safetensors_and_json_only(tmp_path):
    learn(empty()).save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "manifest.json", tensor_file(tmp_path).name]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    tensors = safetensors.torch.load_file(tensor_file(tmp_path))
    assert manifest["tensors"].keys() == tensors.keys()
    assert manifest["model"] == {"name": "tiny", "fingerprint": "f1n9e8", "tokenizer": "70ce", "revision": ""}
    # The same content has the same name.
    before = tensor_file(tmp_path)
    load(tmp_path).save(tmp_path)
    assert tensor_file(tmp_path) == before


OTHER_KV = KVShape(2, 2, 4, torch.float32)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"model": ModelIdentity("tiny", "other", "70ce", "v2")},
            r"model.fingerprint is f1n9e8 \(tiny\) in the store, expected other \(tiny@v2\)",
        ),
        ({"model": ModelIdentity("tiny", "f1n9e8", "71ce")}, "model.tokenizer is 70ce in the store, expected 71ce"),
        ({"shape": OTHER_KV}, "kv.dtype is bfloat16 in the store, expected float32"),
        ({"shape": KVShape(3, 2, 4, torch.bfloat16)}, "kv.layers is 2 in the store, expected 3"),
        ({"shape": KVShape(2, 1, 4, torch.bfloat16)}, "kv.kv_heads is 2 in the store, expected 1"),
        ({"shape": KVShape(2, 2, 8, torch.bfloat16)}, "kv.head_dim is 4 in the store, expected 8"),
        ({"rope": Rope(torch.tensor([1.0, 0.2]))}, "rope is .* in the store, expected"),
        ({"config": replace(CONFIG, density=0.5)}, "config.density is 0.25 in the store, expected 0.5"),
        ({"config": replace(CONFIG, codec="dense")}, "config.codec is sparse in the store, expected dense"),
        ({"config": replace(CONFIG, exact_head=2)}, "config.exact_head is 1 in the store, expected 2"),
        (
            {"config": replace(CONFIG, scope=Scope.REQUEST)},
            r"config.scope is path \(prompts without head and tail\) in the store, expected request \(whole prompts\)",
        ),
        (
            {"prompts": {**PROMPTS, "check": (5, 11, 12, 14, 9)}},
            r"prompt of 'check' is 5 tokens \(SHA-256 .*\) in the store, expected 5 tokens \(SHA-256",
        ),
        (
            {"prompts": {"solve": PROMPTS["solve"], "ask": PROMPTS["ask"]}},
            r"prompt of 'check' is 5 tokens .* in the store, expected no such operation",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, changes, sentence):
    learn(empty()).save(tmp_path)
    for repair in (False, True):
        with pytest.raises(StoreMismatchError, match=f"does not fit: {sentence}") as error:
            load(tmp_path, repair=repair, **changes)
        assert error.value.field in sentence.replace("\\", "")


def test_what_may_change(tmp_path):
    learn(empty()).save(tmp_path)
    config = replace(CONFIG, coverage=0.8, decay=0.99, prune_every=7, workspace_items=3, min_observations=9)
    again = load(
        tmp_path,
        model=ModelIdentity("alias", "f1n9e8", "70ce", "main"),
        config=config,
        prompts={**PROMPTS, "later": (1, 2, 3, 4)},
    )
    assert again.config == config
    assert again.materialised == set(HELD)
    assert "later" not in again
    again.add_base("later", (1, 2, 3, 4), kv(5, 4))


def test_saved_settings_of_other_code(tmp_path):
    """A setting that was not there yet has its default; one that is not there any more is refused."""
    learn(empty()).save(tmp_path)
    manifest = tmp_path / "manifest.json"
    body = parse(manifest.read_bytes())
    del body["config"]["judges_exact"]
    manifest.write_bytes(seal(body))
    assert load(tmp_path).config == CONFIG
    body["config"]["colour"] = "red"
    manifest.write_bytes(seal(body))
    with pytest.raises(StoreMismatchError, match="config.colour is red in the store, expected no such setting"):
        load(tmp_path)


def flip(folder: Path, name: str) -> None:
    """Flip one bit of one tensor, in the file as it is."""
    file = tensor_file(folder)
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8 : 8 + size])[name]["data_offsets"]
    data[8 + size + (begin + end) // 2] ^= 4
    file.write_bytes(data)


def entry(folder: Path, kind: str, key: tuple) -> dict:
    """An entry of the manifest."""
    entries = json.loads((folder / "manifest.json").read_text())[kind]
    return next(one for one in entries if (one["operation"], tuple(one["path"])) == key)


def test_a_flipped_bit_in_a_residual(tmp_path):
    store = learn(empty())
    store.save(tmp_path)
    name = entry(tmp_path, "residuals", HELD[1])["codec"]["values"]
    flip(tmp_path, name)
    sentence = rf"residual of 'check' after solve: tensor '{name}' has SHA-256 .*\.\.\., expected"
    with pytest.raises(StoreFormatError, match=f"is damaged: {sentence}.*repair=True leaves such entries out"):
        load(tmp_path)
    again = load(tmp_path, repair=True)
    (dropped,) = again.dropped
    assert dropped.startswith("residual of 'check' after solve: ")
    assert again.materialised == {HELD[0]}
    assert again.learning == {LEARNED}
    # The path is served exactly and learned again from exact runs.
    assert again.plan(*HELD[1]).fallback
    for index in range(3):
        again.observe(*HELD[1], kv(100 + index, 5))
    assert served(again) == served(store)
    again.save(tmp_path)
    assert load(tmp_path).dropped == ()


def test_a_flipped_bit_in_a_base(tmp_path):
    store = learn(empty())
    store.save(tmp_path)
    operations = json.loads((tmp_path / "manifest.json").read_text())["operations"]
    flip(tmp_path, next(one["base"] for one in operations if one["name"] == "check"))
    with pytest.raises(StoreFormatError, match="base of 'check', with all of its paths: tensor 'base.1' has SHA-256"):
        load(tmp_path)
    again = load(tmp_path, repair=True)
    assert "check" not in again
    assert again.materialised == {HELD[0]}
    again.add_base("check", PROMPTS["check"], kv(1, 5))
    for index in range(3):
        again.observe(*HELD[1], kv(100 + index, 5))
    assert served(again) == served(store)


def test_a_flipped_bit_in_moments_and_in_the_manifest(tmp_path):
    learn(empty()).save(tmp_path)
    flip(tmp_path, entry(tmp_path, "moments", LEARNED)["mean"])
    with pytest.raises(StoreFormatError, match="moments of 'solve' after solve > check: tensor 'moments.0.mean' has"):
        load(tmp_path)
    again = load(tmp_path, repair=True)
    assert (again.learning, again.materialised) == (frozenset(), set(HELD))
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"count": 1', '"count": 2'))
    for repair in (False, True):
        with pytest.raises(StoreFormatError, match=r"manifest.json is damaged: its SHA-256 is .*, it says"):
            load(tmp_path, repair=repair)


def truncate(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


FOREIGN = {
    "no store is there: it has no manifest.json": lambda manifest, _: manifest.unlink(),
    "manifest.json is empty": lambda manifest, _: truncate(manifest, 0),
    "manifest.json is not JSON, or not all of it": lambda manifest, _: truncate(manifest, 500),
    "manifest.json is not JSON, or not all of it .*utf-8": lambda manifest, _: manifest.write_bytes(b"\xff\xff\xff"),
    "manifest.json is JSON of something else": lambda manifest, _: manifest.write_text('{"weight_map": {}}'),
    "manifest.json is JSON of something else: it has no": lambda manifest, _: manifest.write_text("[1]"),
    "format version is 1, expected 2": lambda manifest, _: manifest.write_text(
        manifest.read_text().replace('"version": 2', '"version": 1')
    ),
    "names no tensor file of ours, got '../weights": lambda manifest, _: manifest.write_bytes(
        seal({**parse(manifest.read_bytes()), "tensor_file": "../weights.safetensors"})
    ),
    "not laid out as its version says .*'operations'": lambda manifest, _: manifest.write_bytes(
        seal({k: v for k, v in parse(manifest.read_bytes()).items() if k != "operations"})
    ),
    r"manifest.json names tensors-.*\.safetensors, which is missing": lambda _, tensors: tensors.unlink(),
    r"tensors-.* \(0 bytes\) is not safetensors": lambda _, tensors: truncate(tensors, 0),
    r"tensors-.* \(900 bytes\) is not safetensors, or not all": lambda _, tensors: truncate(tensors, 900),
    r"\(.* bytes\) is not safetensors, or not all of it": lambda _, tensors: truncate(
        tensors, tensors.stat().st_size - 1
    ),
    r"\(17 bytes\) is not safetensors": lambda _, tensors: tensors.write_bytes(b"PK\x03\x04 not a tensor"[:17]),
}


@pytest.mark.parametrize("sentence", FOREIGN)
def test_what_is_not_a_whole_store_is_refused(tmp_path, sentence):
    learn(empty()).save(tmp_path)
    FOREIGN[sentence](tmp_path / "manifest.json", tensor_file(tmp_path))
    for repair in (False, True):
        with pytest.raises(StoreFormatError, match=f"^operation store at .*{sentence}"):
            load(tmp_path, prompts=PROMPTS, repair=repair)


def test_nothing_there():
    with pytest.raises(StoreFormatError, match="operation store at memory://nowhere: no store is there"):
        load("memory://nowhere")


def test_missing_extra_and_other_tensors(tmp_path):
    learn(empty()).save(tmp_path)
    file = tensor_file(tmp_path)
    whole = safetensors.torch.load_file(file)
    first, second = (entry(tmp_path, "residuals", key)["codec"]["values"] for key in HELD)
    tensors = dict(whole)
    del tensors[first]
    tensors[second] = tensors[second].to(torch.float32)
    tensors["stranger"] = torch.zeros(3)
    safetensors.torch.save_file(tensors, file)
    again = load(tmp_path, repair=True)
    assert again.materialised == frozenset()
    assert again.learning == {LEARNED}
    sentences = {
        "tensor 'stranger' is in the file and not in the manifest",
        f"residual of 'solve' after nothing: tensor '{first}' is missing",
        f"residual of 'check' after solve: tensor '{second}' has dtype float32, expected bfloat16",
    }
    assert set(again.dropped) == sentences
    with pytest.raises(StoreFormatError, match="'stranger' is in the file") as error:
        load(tmp_path)
    assert all(sentence in str(error.value) for sentence in sentences)
    safetensors.torch.save_file({**whole, "base.1": whole["base.1"].flatten()}, file)
    # Bases in alphabetical order: ask's has nothing between head and tail, check's 3 tokens.
    with pytest.raises(StoreFormatError, match=r"'base.1' has shape \[96\], expected \[2, 2, 2, 3, 4\]"):
        load(tmp_path)


def test_only_what_is_allowed_is_taken_over(tmp_path):
    learn(empty()).save(tmp_path)
    again = load(tmp_path, allowed={HELD[0], LEARNED})
    assert (again.materialised, again.learning) == ({HELD[0]}, {LEARNED})
    assert again.dropped == ("'check' after solve: not among the allowed transitions",)
    assert len(again.paths) == 2


def test_a_smaller_budget_keeps_what_is_used_most(tmp_path):
    store = learn(empty())
    for _ in range(5):
        store.touch(*HELD[1])
    store.save(tmp_path)
    held = store.nbytes()
    fixed = held.base + 8 * CONFIG.tracked_paths
    longest = 4 * SHAPE.bytes_per_token  # the core of solve; moments are 4 bytes for each byte of bfloat16
    limit = fixed + held.residual + 5 * longest
    assert load(tmp_path, config=replace(CONFIG, store_bytes=limit)).materialised == set(HELD)
    # Everything fits but the moments, which then find no room beside a decoded segment.
    small = load(tmp_path, config=replace(CONFIG, store_bytes=limit - 1))
    assert small.materialised == {HELD[1]}
    assert small.nbytes().total <= limit - 1
    with pytest.raises(BudgetError, match="store_bytes must be at least"):
        load(tmp_path, config=replace(CONFIG, store_bytes=fixed - 1))


def test_guards(tmp_path):
    with pytest.raises(ValueError, match="to save a store its model must be known"):
        empty(model=None).save(tmp_path)
    with pytest.raises(ValueError, match="ModelIdentity.fingerprint must not be empty"):
        ModelIdentity("tiny", "", "70ce")
    with pytest.raises(ValueError, match="[Pp]rotocol"):
        empty().save("nonsense://x")


def test_tensors_that_share_memory(tmp_path):
    store = learn(empty())
    encoded = store._learned.residuals[HELD[0]]
    encoded.tensors["values"] = store._learned.residuals[HELD[1]].tensors["values"]
    store.save(tmp_path)
    assert load(tmp_path).materialised == set(HELD)


def test_a_save_that_fails_leaves_the_old_store(tmp_path, monkeypatch):
    store = learn(empty())
    store.save(tmp_path)
    before, files = served(load(tmp_path)), {file.name for file in tmp_path.iterdir()}
    learn(store, rounds=20, seed=3)
    real, calls = os.replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError("no space left")
        return real(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="no space left"):
        store.save(tmp_path)
    assert served(load(tmp_path)) == before
    # The new tensors are there without a manifest; the next save removes them.
    assert len({file.name for file in tmp_path.iterdir()} - files) == 1
    store.save(tmp_path)
    assert served(load(tmp_path)) == served(store)
    assert len(list(tmp_path.iterdir())) == 3


def test_object_stores_replace_one_pair_by_another(monkeypatch):
    location = f"memory://{uuid.uuid4()}"
    files = fsspec.filesystem("memory")
    store = learn(empty())
    store.save(location)
    learn(store, rounds=20, seed=3)
    with monkeypatch.context() as patched:
        patched.setattr(type(files), "mv", lambda self, *args: (_ for _ in ()).throw(OSError("connection lost")))
        with pytest.raises(OSError, match="connection lost"):
            store.save(location)
    assert load(location).materialised == set(HELD)
    store.save(location)
    assert load(location).materialised == store.materialised
    assert len(files.ls(location)) == 2


FORK = multiprocessing.get_context("fork")


def _killed(location: Path, call: int) -> None:
    """Saves another store and is killed at the given rename."""
    real, calls = os.replace, []

    def dying(source, target):
        calls.append(target)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(source, target)

    os.replace = dying
    learn(empty(), rounds=20, seed=3).save(location)


@pytest.mark.parametrize("call", [1, 2])
def test_a_killed_save_leaves_the_old_store(tmp_path, call):
    store = learn(empty())
    store.save(tmp_path)
    before = served(store)
    process = FORK.Process(target=_killed, args=(tmp_path, call))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert list(tmp_path.glob("*.tmp"))
    assert served(load(tmp_path)) == before
    # Its lock went with it; the next save cleans up what it left.
    store.save(tmp_path, wait_s=5)
    assert served(load(tmp_path)) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "manifest.json", tensor_file(tmp_path).name]


def test_a_second_saver_waits_and_then_says_so(tmp_path):
    store = learn(empty())
    store.save(tmp_path)
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(StoreLockedError, match=r"another process has been saving for more than 0.05 s"),
    ):
        store.save(tmp_path, wait_s=0.05)
    assert load(tmp_path).materialised == set(HELD)


def _saver(location: Path, rounds: int, times: int) -> None:
    store = learn(empty(), rounds=rounds, seed=rounds)
    for _ in range(times):
        store.save(location)


def test_two_savers_and_a_reader_never_see_a_mixture(tmp_path):
    """Two processes save different stores to one place over and over; what is read is always one of the two."""
    whole = [(served(store), store.paths.dump()) for store in (learn(empty(), n, n) for n in (3, 4))]
    assert whole[0] != whole[1]
    savers = [FORK.Process(target=_saver, args=(tmp_path, rounds, 30)) for rounds in (3, 4)]
    learn(empty(), 3, 3).save(tmp_path)
    for process in savers:
        process.start()
    seen = set()
    while any(process.is_alive() for process in savers):
        again = load(tmp_path)
        assert again.dropped == ()
        seen.add(whole.index((served(again), again.paths.dump())))
    for process in savers:
        process.join()
    assert [process.exitcode for process in savers] == [0, 0]
    assert seen == {0, 1}
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "manifest.json", tensor_file(tmp_path).name]


def test_a_reader_follows_a_manifest_that_was_replaced(tmp_path):
    """The tensors that a reader was sent to may be gone by the time it opens them: it reads the manifest again."""
    store = learn(empty())
    store.save(tmp_path)
    folder, reads = Folder(tmp_path), []
    real = folder._read

    def slow(name: str) -> bytes:
        data = real(name)
        reads.append(name)
        if reads == ["manifest.json"]:
            learn(store, rounds=20, seed=3).save(tmp_path)
        return data

    folder._read = slow
    manifest, tensors = folder.read(lambda data: json.loads(data)["tensor_file"])
    assert reads[:2] == ["manifest.json", "manifest.json"]
    assert json.loads(manifest)["tensor_file"] == tensor_file(tmp_path).name
    assert tensors == tensor_file(tmp_path).read_bytes()
