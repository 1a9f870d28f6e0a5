"""The token cache: keys that tell all that matters, entries that are whole or missing, a folder that many may use."""

import errno
import hashlib
import io
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.errors import UserError
from fish_speech.synthesis import cache as cache_module
from fish_speech.synthesis.cache import CacheInfo, TokenCache, default_folder, default_limit, segment_key
from fish_speech.synthesis.sampling import SamplingConfig

from .hammer_cache import columns_of

KEY, OTHER = "ab" * 32, "cd" * 32
COLUMNS = np.arange(15).reshape(3, 5) * 1000
REPO = Path(__file__).parents[2]
HAMMER = Path(__file__).with_name("hammer_cache.py")
ROOM = 1 << 20
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPO)}


@pytest.fixture()
def cache(tmp_path) -> TokenCache:
    return TokenCache(tmp_path / "tokens", ROOM)


def entry(cache: TokenCache, key: str = KEY) -> Path:
    return cache.folder / key[:2] / f"{key}.tokens"


def sealed(key: str, array: np.ndarray, **save) -> bytes:
    """An entry with a right checksum, whatever is in it."""
    buffer = io.BytesIO()
    np.save(buffer, array, **save)
    return hashlib.sha256(key.encode() + buffer.getvalue()).digest() + buffer.getvalue()


# Keys

facts = st.fixed_dictionaries(
    {
        "identity": st.text(max_size=3),
        "prompt": st.tuples(st.sampled_from([(2, 3), (3, 2), (1, 6)]), st.lists(st.integers(0, 2), min_size=6, max_size=6)),
        "sampling": st.builds(
            SamplingConfig,
            temperature=st.sampled_from([0.0, 0.7, 0.7 + 2**-50]),
            top_p=st.sampled_from([0.7, 1.0]),
            repetition_penalty=st.sampled_from([1.0, 1.2]),
        ),
        "seed": st.integers(0, 2),
        "limit": st.integers(0, 2),
        "least": st.integers(0, 2),
    }
)  # fmt: skip


def key_of(fact: dict) -> str:
    shape, values = fact["prompt"]
    return segment_key(**{**fact, "prompt": np.array(values).reshape(shape)})


@settings(max_examples=120, deadline=None)
@given(facts, facts, st.lists(st.sampled_from(["identity", "prompt", "sampling", "seed", "limit", "least"])))
def test_keys_are_equal_just_where_all_that_decides_the_tokens_is_equal(first, second, shared):
    second = {**second, **{name: first[name] for name in shared}}
    assert (key_of(first) == key_of(second)) == (first == second)


def test_a_key_does_not_depend_on_how_numbers_are_spelled_or_laid_out():
    prompt = np.arange(12).reshape(3, 4)
    key = segment_key("id", prompt, SamplingConfig(0.0, 1.0, 1.0), 1, 0, 0)
    assert len(key) == 64
    for same in (np.asfortranarray(prompt), prompt.astype(">i4"), prompt.astype(np.uint8)):
        assert segment_key("id", same, SamplingConfig(-0.0, 1, 1), np.int64(1), 0, 0) == key
    assert segment_key("id", prompt.T, SamplingConfig(0.0, 1.0, 1.0), 1, 0, 0) != key
    with pytest.raises(ValueError, match="whole numbers"):
        segment_key("id", prompt * 1.0, SamplingConfig(), 1, 0, 0)


def test_every_setting_of_sampling_is_part_of_the_key():
    prompt, plain = np.zeros((2, 2), int), SamplingConfig(0.5, 0.5, 0.5)
    changed = [replace(plain, **{name: 0.25}) for name in vars(plain)]
    assert len({segment_key("id", prompt, s, 1, 0, 0) for s in (plain, *changed)}) == 1 + len(changed) >= 4


# Entries


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 2**31 - 1))
def test_what_is_put_is_got(tmp_path_factory, rows, frames, largest):
    cache = TokenCache(tmp_path_factory.mktemp("cache") / "tokens", ROOM)
    columns = np.random.default_rng(largest).integers(0, largest, (rows, frames), endpoint=True)
    cache.put(KEY, columns)
    found = cache.get(KEY)
    assert found.dtype == np.int64 and np.array_equal(found, columns) and found.flags.writeable
    assert cache.get(OTHER) is None


def test_a_cache_that_only_reads_makes_no_folder(cache):
    assert cache.get(KEY) is None
    assert cache.info() == CacheInfo(cache.folder, 0, 0, ROOM) and cache.clear() == (0, 0)
    assert not cache.folder.exists()


@pytest.mark.parametrize("key", ["", "ab", "AB" * 32, "../" * 20 + "ab" * 2, KEY + "\n", KEY + "/x"])
def test_what_is_no_key_names_no_file(cache, key):
    with pytest.raises(ValueError, match="64 hex digits"):
        cache.get(key)
    with pytest.raises(ValueError, match="64 hex digits"):
        cache.put(key, COLUMNS)


@pytest.mark.parametrize(
    "columns", [np.zeros(3, int), np.zeros((3, 0), int), COLUMNS * 1.0, COLUMNS - 1, COLUMNS + 2**31, COLUMNS > 3]
)
def test_what_is_no_columns_is_not_kept(cache, columns):
    with pytest.raises(ValueError, match="columns"):
        cache.put(KEY, columns)
    assert not cache.folder.exists()


def test_any_flipped_bit_and_any_missing_end_makes_an_entry_missing_and_removes_it(cache):
    cache.put(KEY, COLUMNS)
    whole = entry(cache).read_bytes()
    for place in range(0, len(whole), 7):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :]):
            entry(cache).write_bytes(damaged)
            assert cache.get(KEY) is None and not entry(cache).exists()
    entry(cache).write_bytes(whole)
    assert np.array_equal(cache.get(KEY), COLUMNS)


def test_an_entry_under_another_key_is_missing(cache):
    cache.put(KEY, COLUMNS)
    entry(cache, OTHER).parent.mkdir()
    entry(cache).rename(entry(cache, OTHER))
    assert cache.get(OTHER) is None and not entry(cache, OTHER).exists()


class Runs:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def header(text: str, body: bytes = b"") -> bytes:
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + body
    return hashlib.sha256(KEY.encode() + content).digest() + content


@pytest.mark.parametrize(
    "content",
    [
        sealed(KEY, COLUMNS - 1),
        sealed(KEY, COLUMNS.astype(np.float32)),
        sealed(KEY, COLUMNS.astype(np.uint8)),
        sealed(KEY, COLUMNS.ravel()),
        sealed(KEY, COLUMNS[:, :0]),
        sealed(KEY, np.array([[Runs()]], dtype=object), allow_pickle=True),
        header("{'descr': '<i4', 'fortran_order': False, 'shape': (9, 100000000000)}\n", b"12"),
        header("{'descr': '<i4', 'fortran_order': False, 'shape': (2, -3)}\n", b"12"),
        header("{'descr': '<i4', 'fortran_order': False, 'shape': " + "(" * 3000 + ")" * 3000 + "}\n"),
        header("'<i4',,\n"),
        header(""),
        b"",
        bytes(9 << 20),
    ],
    ids=lambda content: f"{len(content)}-{content[32:60]!a}",
)
def test_a_poisoned_entry_is_missing_even_with_a_right_checksum(cache, monkeypatch, tmp_path, content):
    monkeypatch.chdir(tmp_path)
    cache.put(OTHER, COLUMNS)
    entry(cache).parent.mkdir()
    entry(cache).write_bytes(content)
    assert cache.get(KEY) is None and not entry(cache).exists()
    assert not Path("ran").exists()


def test_ids_that_the_model_does_not_have_make_an_entry_missing(cache):
    fitting = COLUMNS.max(axis=1) + 1
    for sizes in (fitting - [0, 0, 1], fitting[:2], [*fitting, 9]):
        cache.put(KEY, COLUMNS)
        assert np.array_equal(cache.get(KEY, fitting), COLUMNS)
        assert cache.get(KEY, sizes) is None and not entry(cache).exists()


def link(path: Path, target: Path) -> None:
    try:
        path.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:
        pytest.skip("links are not allowed here")


def test_a_link_is_no_entry_and_what_it_leads_to_stays(cache, tmp_path):
    cache.put(KEY, COLUMNS)
    outside = tmp_path / "outside.tokens"
    entry(cache).rename(outside)
    link(entry(cache), outside)
    assert cache.get(KEY) is None and outside.is_file() and not entry(cache).is_symlink()
    link(entry(cache), outside)
    cache.put(KEY, COLUMNS + 1)  # replaces the link
    assert np.array_equal(cache.get(KEY), COLUMNS + 1) and outside.read_bytes() != entry(cache).read_bytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_or_a_folder_in_place_of_an_entry_or_the_tally_stops_nothing(cache, caplog):
    cache.put(KEY, COLUMNS)
    entry(cache).unlink()
    os.mkfifo(entry(cache))
    assert cache.get(KEY) is None
    entry(cache).mkdir()
    assert cache.get(KEY) is None
    cache.put(KEY, COLUMNS)
    (cache.folder / "tally").unlink()
    os.mkfifo(cache.folder / "tally")
    cache.put(OTHER, COLUMNS)
    assert len(caplog.records) == 1 and np.array_equal(cache.get(OTHER), COLUMNS)


# Folder, limit, clearing


def test_what_was_unused_longest_goes_first(tmp_path):
    cache = TokenCache(tmp_path / "tokens", 10 * 4096)
    keys = [f"{number:02x}" * 32 for number in range(11)]
    for number, key in enumerate(keys[:10]):
        cache.put(key, COLUMNS)
        os.utime(entry(cache, key), (1000 + number, 1000 + number))
    assert cache.info().entries == 10 and cache.info().bytes == 10 * 4096
    cache.get(keys[0])
    cache.put(keys[10], COLUMNS)
    left = [key for key in keys if cache.get(key) is not None]
    assert left == [keys[0], *keys[4:]]  # an eighth of the limit is free again: 8 entries of one block are left


def test_the_limit_holds_after_every_write(tmp_path):
    cache = TokenCache(tmp_path / "tokens", 25_000)
    for number in range(120):
        key = hashlib.sha256(bytes([number])).hexdigest()
        cache.put(key, columns_of(key))
        assert cache.info().bytes <= 25_000
        assert np.array_equal(cache.get(key), columns_of(key))
    assert cache.info().entries > 1
    smaller = TokenCache(tmp_path / "tokens", 9_000)
    smaller.put(KEY, COLUMNS)
    assert smaller.info().bytes <= 9_000 and smaller.get(KEY) is not None


def test_a_write_lists_no_folder_unless_the_limit_is_passed(cache, monkeypatch):
    cache.put(KEY, COLUMNS)
    listed = []
    listing = cache_module._listed
    monkeypatch.setattr(cache_module, "_listed", lambda folder: listed.append(folder) or listing(folder))
    for number in range(100):
        cache.put(f"{number:02x}" * 32, COLUMNS)
    assert listed == []
    for number in range(100, 256):
        cache.put(f"{number:02x}" * 32, COLUMNS)
    assert listed and cache.info().bytes <= ROOM


@pytest.mark.parametrize("limit", [0, 4095])
def test_what_is_larger_than_the_limit_is_not_kept(tmp_path, limit):
    cache = TokenCache(tmp_path / "tokens", limit)
    cache.put(KEY, COLUMNS)
    assert cache.get(KEY) is None and not cache.folder.exists()
    with pytest.raises(ValueError, match="limit"):
        TokenCache(tmp_path, -1)


def test_a_lost_tally_is_made_anew_from_what_is_there(tmp_path):
    cache = TokenCache(tmp_path / "tokens", 4 * 4096)
    for number in range(4):
        cache.put(f"{number:02x}" * 32, COLUMNS)
    (cache.folder / "tally").unlink()
    cache.put(KEY, COLUMNS)
    assert cache.info().bytes <= 4 * 4096 and cache.get(KEY) is not None


def test_clearing_removes_all_entries_and_nothing_else(cache, tmp_path):
    cache.put(KEY, COLUMNS)
    cache.put(OTHER, COLUMNS)
    mine = [cache.folder / "thesis.tokens", entry(cache).with_name("notes.txt"), cache.folder / f"{KEY}.tokens",
            cache.folder / "ab" / f"{OTHER}.tokens", cache.folder / "abc" / f"{KEY}.tokens"]  # fmt: skip
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("precious")
    (tmp_path / "elsewhere").mkdir()
    outside = tmp_path / "elsewhere" / f"{'ef' * 32}.tokens"
    outside.write_bytes(sealed("ef" * 32, COLUMNS))
    link(cache.folder / "ef", tmp_path / "elsewhere")
    (cache.folder / "ab" / ".partial-1-x1y2z3a4.tokens").write_text("left behind")
    assert cache.info().entries == 2
    assert cache.clear() == (2, 2 * 4096)
    assert cache.info().entries == 0 and cache.get(KEY) is None
    assert all(path.read_text() == "precious" for path in mine) and outside.is_file()
    assert not list(cache.folder.rglob(".partial-*"))
    cache.put(KEY, COLUMNS)
    assert np.array_equal(cache.get(KEY), COLUMNS)


def test_a_folder_of_other_things_is_neither_filled_nor_cleared(tmp_path, caplog):
    folder = tmp_path / "home"
    (folder / "ab").mkdir(parents=True)
    precious = folder / "ab" / f"{KEY}.tokens"
    precious.write_text("precious")
    cache = TokenCache(folder, ROOM)
    for _ in range(3):
        cache.put(OTHER, COLUMNS)
    assert cache.get(KEY) is None and cache.clear() == (0, 0) and cache.info().entries == 0
    assert sorted(folder.rglob("*")) == [folder / "ab", precious] and precious.read_text() == "precious"
    assert len(caplog.records) == 1 and "holds other files" in caplog.text


@pytest.mark.parametrize("tag", ["", "Signature: 8a477f597d28d172789f06886806bc55\n# Of another program.\n"])
def test_the_tag_of_another_program_is_not_the_caches(tmp_path, tag):
    (tmp_path / "CACHEDIR.TAG").write_text(tag)
    (tmp_path / "ab").mkdir()
    entry(TokenCache(tmp_path, ROOM)).write_text("theirs")
    assert TokenCache(tmp_path, ROOM).clear() == (0, 0) and entry(TokenCache(tmp_path, ROOM)).is_file()


def test_a_place_that_cannot_be_written_costs_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = TokenCache(tmp_path / "file" / "tokens", ROOM)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            cache.put(KEY, COLUMNS)
            assert cache.get(KEY) is None
    assert len(caplog.records) == 1 and "keeps nothing" in caplog.text


def test_a_place_where_no_folder_can_be_made_costs_one_warning(tmp_path, caplog, monkeypatch):
    def as_in_proc(*given, **options):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(Path, "mkdir", as_in_proc)
    cache = TokenCache(tmp_path / "gone" / "tokens", ROOM)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            cache.put(KEY, COLUMNS)
    assert len(caplog.records) == 1 and "keeps nothing: No such file" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of file sizes")
def test_a_disk_that_takes_no_more_leaves_what_was_there_and_nothing_torn(tmp_path):
    code = f"""
import logging, resource, signal, sys
import numpy as np
from fish_speech.synthesis.cache import TokenCache
logging.basicConfig(format="%(message)s")
cache = TokenCache({str(tmp_path / "tokens")!r}, 1 << 20)
cache.put({KEY!r}, np.ones((3, 5), int))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a write beyond fails, as on a full disk
for _ in range(3):
    cache.put({OTHER!r}, np.ones((3, 5000), int))
print(cache.get({KEY!r}) is not None, cache.get({OTHER!r}) is None, cache.info().entries)
"""
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "1"]
    assert done.stderr.count("keeps nothing") == 1 and done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob(".partial-*"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_still_serves(cache, caplog):
    cache.put(KEY, COLUMNS)
    for path in (cache.folder / "ab", cache.folder):
        path.chmod(0o500)
    try:
        assert np.array_equal(cache.get(KEY), COLUMNS)
        cache.put(OTHER, COLUMNS)
        cache.put(OTHER, COLUMNS)
    finally:
        for path in (cache.folder, cache.folder / "ab"):
            path.chmod(0o700)
    assert len(caplog.records) == 1


# Several processes


def start(folder: Path, limit: int, seed: int, count: int, *more: str) -> subprocess.Popen:
    arguments = [sys.executable, str(HAMMER), str(folder), str(limit), str(seed), str(count), *more]
    return subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("clearing", [(), ("clear",)], ids=["evicting", "clearing"])
def test_processes_that_use_a_cache_at_once_get_what_was_put_or_nothing(tmp_path, clearing):
    limit = 60_000
    processes = [start(tmp_path / "tokens", limit, seed, 400, *(() if seed else clearing)) for seed in range(4)]
    hits = 0
    for process in processes:
        out, err = process.communicate()
        assert process.returncode == 0 and err == "", err
        hits += int(out.split()[-1])
    assert hits > 50
    cache = TokenCache(tmp_path / "tokens", limit)
    held = cache.info().bytes
    assert held <= limit + 4 * 12288  # each process may have written one entry while another listed
    assert clearing or held > limit / 2
    assert not list(tmp_path.rglob(".partial-*"))


def test_a_process_that_is_killed_leaves_whole_entries_and_no_lock(tmp_path):
    for seed in range(3):
        process = start(tmp_path / "tokens", 60_000, seed, 0)
        assert process.stdout.readline() == "going\n", process.communicate()[1]
        process.kill()
        process.communicate()
    done = start(tmp_path / "tokens", 60_000, 9, 300)
    out, err = done.communicate()
    assert done.returncode == 0 and err == "" and int(out.split()[-1]) > 10


def test_what_a_killed_writer_left_is_swept_when_it_is_old(tmp_path):
    cache = TokenCache(tmp_path / "tokens", 2 * 4096)
    cache.put(KEY, COLUMNS)
    young, old = (cache.folder / "ab" / f".partial-1-{name}.tokens" for name in ("young", "old"))
    for path in (young, old):
        path.write_bytes(b"torn")
    os.utime(old, (1000, 1000))
    for number in range(4):
        cache.put(f"{number:02x}" * 32, COLUMNS)
    assert young.exists() and not old.exists()


# Settings


def test_the_folder_and_the_limit_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("FISH_SPEECH_CACHE", str(tmp_path))
    monkeypatch.setenv("FISH_SPEECH_CACHE_MB", "1.5")
    assert default_folder() == tmp_path / "tokens" and default_limit() == 1_500_000
    assert TokenCache().info() == (tmp_path / "tokens", 0, 0, 1_500_000)
    monkeypatch.delenv("FISH_SPEECH_CACHE")
    monkeypatch.setenv("FISH_SPEECH_CACHE_MB", "")
    assert default_limit() == 512_000_000
    assert default_folder().parent.name == "fish-speech-voice-toolkit" or sys.platform == "win32"


@pytest.mark.parametrize("size", ["-1", "nan", "inf", "much", "1e12"])
def test_an_odd_size_in_the_environment_is_an_error(monkeypatch, size):
    monkeypatch.setenv("FISH_SPEECH_CACHE_MB", size)
    with pytest.raises(UserError, match="FISH_SPEECH_CACHE_MB"):
        default_limit()
