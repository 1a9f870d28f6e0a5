"""The doctor, on whole and on broken models, programs, packages and folders."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fish_speech import doctor, system_memory
from fish_speech.checkpoint import sha256
from fish_speech.doctor import (
    Finding,
    accelerator,
    decoders,
    findings,
    install,
    machine,
    nvidia,
    optional,
    packages,
    programs,
    report,
    room,
    supervise,
)
from fish_speech.doctor.checks import Check, checks_for
from fish_speech.doctor.decoders import KINDS, Kind, look_at_decoder
from fish_speech.doctor.weights import Base, look_at_codec, look_at_files, look_at_model
from fish_speech.errors import UserError

from .conftest import CODEC_FILE, REPO

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="the ffmpeg program is not here")
needs_scripts = pytest.mark.skipif(os.name == "nt", reason="stand-ins for programs are shell scripts")
as_root = hasattr(os, "geteuid") and os.geteuid() == 0


def states(found) -> dict[str, str]:
    return {finding.name: finding.state for finding in found}


def only(found) -> Finding:
    (finding,) = found
    return finding


def look_at_all(base: Base) -> dict[str, Finding]:
    found = [*look_at_files(base), *look_at_model(base), *look_at_codec(base)]
    return {finding.name: finding for finding in found}


# Weights


@pytest.fixture()
def own(small_base, tmp_path, monkeypatch) -> Base:
    """A copy of the small base where downloads of 1.5 go, with the record of a download."""
    monkeypatch.chdir(tmp_path)
    base = Base.of("1.5", None)
    shutil.copytree(small_base, base.folder)
    files = {path.name: {"size": path.stat().st_size, "sha256": sha256(path)} for path in base.files}
    record = {"repo": base.version.hub_id, "commit": "0" * 40, "files": files}
    (base.folder / ".revision.json").write_text(json.dumps(record), encoding="utf-8")
    return base


def test_whole_weights_are_good_and_compared_with_the_record_of_the_download(own):
    found = look_at_all(own)
    assert set(states(found.values()).values()) == {"good"}
    assert {"config.json", "model.pth", "tokenizer.tiktoken", CODEC_FILE, "model", "tokenizer", "codec"} <= set(found)
    assert all(".revision.json" in found[path.name].found for path in own.files)


def test_weights_without_a_record_are_good_and_it_is_said_that_no_hash_is_known(small_base):
    found = look_at_all(Base.of("1.5", small_base))
    assert set(states(found.values()).values()) == {"good"}
    assert "no hash" in found["model.pth"].found


def test_a_torn_file_is_wrong_with_a_fix_by_record_and_by_content(own):
    with own.weights.open("r+b") as file:
        file.truncate(own.weights.stat().st_size * 2 // 3)
    found = look_at_all(own)
    assert found["model.pth"].state == found["model"].state == "wrong"
    assert "torn" in found["model.pth"].found and own.version.how_to_get in found["model.pth"].fix
    assert found["config.json"].state == found["codec"].state == "good"


@pytest.mark.parametrize("number", range(4))
def test_one_changed_byte_in_any_file_is_wrong(own, number):
    path = own.files[number]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = {finding.name: finding for finding in look_at_files(own)}
    assert found.pop(path.name).state == "wrong"
    assert set(states(found.values()).values()) == {"good"}


@pytest.mark.parametrize("number", range(4))
def test_a_missing_file_is_wrong_once_with_the_command_that_fetches_it(own, number):
    own.files[number].unlink()
    wrong = only(finding for finding in look_at_all(own).values() if finding.state == "wrong")
    assert "missing" in wrong.found and wrong.fix == own.version.how_to_get


def test_a_missing_folder_is_one_finding_with_the_command_that_fetches_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = Base.of("1.5", None)
    assert only(look_at_all(base).values()).fix == base.version.how_to_get


def test_an_empty_file_is_wrong(small_base, tmp_path):
    folder = shutil.copytree(small_base, tmp_path / "base")
    (folder / "tokenizer.tiktoken").write_bytes(b"")
    assert look_at_all(Base.of("1.5", folder))["tokenizer.tiktoken"].state == "wrong"


@pytest.mark.parametrize("config", ["{", "[]", '{"dim": "x"}', "\0", "{}" * 2])
def test_a_config_that_is_none_is_wrong(own, config):
    (own.folder / "config.json").write_text(config, encoding="utf-8")
    assert look_at_all(own)["model"].state == "wrong"


def test_weights_of_another_shape_or_with_nan_are_wrong(small_base, tmp_path):
    folder = shutil.copytree(small_base, tmp_path / "base")
    weights = torch.load(folder / "model.pth")
    name = next(name for name in weights if name.endswith("wqkv.weight"))
    torch.save({**weights, name: weights[name][:-1]}, folder / "model.pth")
    assert name in look_at_all(Base.of("1.5", folder))["model"].found
    weights[name][0, 0] = float("nan")
    torch.save(weights, folder / "model.pth")
    found = look_at_all(Base.of("1.5", folder))["model"]
    assert found.state == "wrong" and "NaN" in found.found


def test_a_codec_with_fewer_codebooks_than_the_model_reads_is_wrong(small_base, tmp_path):
    folder = shutil.copytree(small_base, tmp_path / "base")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "num_codebooks": 9}), encoding="utf-8")
    found = look_at_all(Base.of("1.5", folder))["codec"]
    assert found.state == "wrong" and "9 codebooks" in found.found


def test_a_folder_of_s1_is_looked_at_like_any_other(small_s1_base):
    found = look_at_all(Base.of("s1-mini", small_s1_base))
    assert set(states(found.values()).values()) == {"good"}
    assert "special_tokens.json" in found and "2 codebooks" not in found["codec"].found
    assert found["codec"].found.startswith("1 codebooks of 1100 codes and 9 codebooks of 1024 codes, 25.0 frames/s")


def test_a_codec_of_the_other_version_is_wrong_in_either_folder(small_base, small_s1_base, tmp_path):
    pairs = {"1.5": (small_base, CODEC_FILE, small_s1_base, "codec.pth")}
    pairs["s1-mini"] = (small_s1_base, "codec.pth", small_base, CODEC_FILE)
    for version, (base, own, other, others) in pairs.items():
        folder = shutil.copytree(base, tmp_path / version)
        shutil.copyfile(other / others, folder / own)  # under the yaml of its own codec
        found = look_at_all(Base.of(version, folder))["codec"]
        assert found.state == "wrong" and "these are weights of a" in found.found
        shutil.copyfile((other / others).with_suffix(".yaml"), (folder / own).with_suffix(".yaml"))
        found = look_at_all(Base.of(version, folder))["codec"]
        assert found.state == "wrong" and "does not fit the model" in found.found


def test_what_a_run_of_a_version_that_is_not_there_takes_is_its_familys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    needs = {version: room.needs_of(Base.of(version, None)) for version in ("1.5", "s1-mini")}
    assert needs["s1-mini"].download > 2 * needs["1.5"].download and needs["s1-mini"].memory > needs["1.5"].memory


def test_weights_that_changed_since_they_were_merged_are_wrong(small_base, tmp_path):
    folder = shutil.copytree(small_base, tmp_path / "voice-merged")
    voice = {"model_sha256": sha256(folder / "model.pth")}
    (folder / "voice.json").write_text(json.dumps(voice), encoding="utf-8")
    assert "as voice.json says" in look_at_all(Base.of("1.5", folder))["model.pth"].found
    weights = torch.load(folder / "model.pth")
    next(iter(weights.values())).add_(1)
    torch.save(weights, folder / "model.pth")
    found = look_at_all(Base.of("1.5", folder))
    assert found["model.pth"].state == "wrong" and "--merge-weights" in found["model.pth"].fix


def test_a_damaged_record_is_a_finding_and_no_error(own):
    (own.folder / ".revision.json").write_text('{"files": {"model.pth": 3}}', encoding="utf-8")
    found = {finding.name: finding for finding in look_at_files(own)}
    damaged = found.pop("hashes")
    assert damaged.state == "wrong" and "delete" in damaged.fix
    assert len(found) == 4 and set(states(found.values()).values()) == {"good"}


@pytest.mark.parametrize("content", ["{", "[]", '{"model_sha256": 7}', "\0", "[" * 100_000])
def test_a_damaged_voice_json_counts_as_no_record(small_base, tmp_path, content):
    folder = shutil.copytree(small_base, tmp_path / "voice-merged")
    (folder / "voice.json").write_text(content, encoding="utf-8")
    assert set(states(look_at_files(Base.of("1.5", folder))).values()) == {"good"}


def test_a_codec_in_the_versions_own_folder_is_compared_with_its_record_there(own, tmp_path):
    folder = shutil.copytree(own.folder, tmp_path / "base", ignore=shutil.ignore_patterns("*.pth.*", ".*", CODEC_FILE))
    found = {finding.name: finding for finding in look_at_files(Base.of("1.5", folder))}
    assert ".revision.json" in found[CODEC_FILE].found and "no hash" in found["model.pth"].found
    own.codec.write_bytes(own.codec.read_bytes()[:-1] + b"x")
    assert states(look_at_files(Base.of("1.5", folder)))[CODEC_FILE] == "wrong"


def test_a_download_that_was_cut_off_is_noted(own):
    part = own.folder / ".download" / "abc.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * 2_000_000)
    found = only(finding for finding in look_at_files(own) if finding.name == "download")
    assert found.state == "note" and "2.0 MB" in found.found


# Decoders and programs


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_kind_of_file_is_decoded_or_said_to_be_not_checked(kind):
    found = only(look_at_decoder(kind))
    if kind.soundfile or shutil.which("ffmpeg"):
        assert found.state == "good", found
    else:
        assert (found.state, found.found[:11]) == ("note", "not checked")


def test_a_tone_that_comes_back_shorter_quieter_or_higher_is_wrong():
    tone = decoders.tone()
    assert decoders.compare(tone, decoders.RATE) == ""
    assert "s long" in decoders.compare(tone[: len(tone) // 2], decoders.RATE)
    assert "level" in decoders.compare(tone / 2, decoders.RATE)
    assert "level" in decoders.compare(tone * 0, decoders.RATE)
    octave_up = np.tile(tone[::2], 2)
    assert "pitch" in decoders.compare(octave_up, decoders.RATE)


@needs_ffmpeg
def test_a_kind_without_an_encoder_is_not_checked():
    found = only(look_at_decoder(Kind("odd", ".m4a", None, ("-c:a", "no_such_encoder"))))
    assert found.state == "note" and "no_such_encoder" in found.found


def script(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture()
def bare_path(tmp_path, monkeypatch) -> Path:
    """A PATH with nothing on it but what the test puts into this folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    decoders._ffmpeg_works.cache_clear()
    yield folder
    decoders._ffmpeg_works.cache_clear()


def test_without_ffmpeg_both_programs_are_wrong_and_their_formats_not_checked(bare_path):
    found = list(programs.look_at_ffmpeg())
    assert states(found) == {"ffmpeg": "wrong", "ffprobe": "wrong"}
    assert all("ffmpeg" in finding.fix for finding in found)
    decoded = {kind.name: only(look_at_decoder(kind)) for kind in KINDS}
    assert {name for name, finding in decoded.items() if finding.state == "note"} >= {"m4a (AAC)", "webm (Opus)"}
    assert {finding.state for finding in decoded.values()} == {"good", "note"}


@needs_scripts
def test_an_ffmpeg_that_hangs_fails_or_is_no_program_is_wrong_and_gets_no_files(bare_path, monkeypatch):
    monkeypatch.setattr(programs, "run_program", lambda command: install.run_program(command, 0.5))
    script(bare_path, "ffmpeg", "time.sleep(60)")
    script(bare_path, "ffprobe", "print('error while loading shared libraries: libx.so'); sys.exit(127)")
    start = time.monotonic()
    ffmpeg, ffprobe = programs.look_at_ffmpeg()
    assert time.monotonic() - start < 30
    assert "does not answer" in ffmpeg.found and "libx.so" in ffprobe.found
    assert ffmpeg.state == ffprobe.state == "wrong"
    (bare_path / "ffmpeg").write_bytes(b"\x7fELF no program")
    assert "cannot be started" in programs.look_at_program("ffmpeg").found
    assert only(look_at_decoder(KINDS[5])).state == "note"


@needs_scripts
@needs_ffmpeg
def test_a_file_that_cannot_be_read_back_is_wrong(tmp_path, monkeypatch):
    real = shutil.which("ffmpeg")
    body = f"""
if "pcm_s16le" in sys.argv or "-version" in sys.argv or "pipe:1" in sys.argv:
    import os
    os.execv({real!r}, sys.argv)
open(sys.argv[-1], "wb").write(b"this is no m4a")"""
    script(tmp_path, "ffmpeg", body)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    decoders._ffmpeg_works.cache_clear()
    found = only(look_at_decoder(KINDS[5]))
    assert found.state == "wrong" and "not audio" in found.found and found.fix


def test_how_to_install_is_said_for_each_platform(bare_path):
    assert install.install_program("ffmpeg", "Darwin") == "brew install ffmpeg"
    assert install.install_program("ffmpeg", "Windows").startswith("winget install Gyan.FFmpeg")
    assert {"apt-get", "dnf"} <= set(install.install_program("ffmpeg", "Linux").split())
    (bare_path / "dnf").touch(mode=0o755)
    if os.name != "nt":
        assert install.install_program("ffmpeg", "Linux") == "sudo dnf install ffmpeg-free"


# Packages


@pytest.fixture()
def installed(tmp_path, monkeypatch):
    """Install a package of one line."""

    def put(name: str, version: str, code: str) -> None:
        folder = tmp_path / "site"
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return put


@pytest.mark.parametrize(
    "code", ["raise OSError('libx.so.1: cannot open')", "import sys; sys.exit(3)", "1 +", "import nix"]
)
def test_a_broken_package_is_wrong_with_the_command_that_mends_it(installed, code):
    installed("brittle", "1.5", code)
    found = only(packages.look_at_package("brittle", ">=1,<2"))
    assert found.state == "wrong" and "cannot be imported" in found.found
    assert 'pip install --force-reinstall --no-deps "brittle>=1,<2"' in found.fix


@pytest.mark.parametrize(("specifier", "state"), [(">=1,<2", "good"), (">=1.6,<2", "wrong"), (">=1,<1.5", "note")])
def test_the_version_of_a_package_is_compared(installed, specifier, state):
    installed("sturdy", "1.5", "")
    assert only(packages.look_at_package("sturdy", specifier)).state == state


def test_packages_that_are_missing_are_one_finding():
    found = only(packages.look_at_missing({"numpy": ">=1", "no-such-package": ">=1", "nor-this": ">=2"}))
    assert found.state == "wrong" and "no-such-package, nor-this" in found.found and "pip install" in found.fix
    assert not list(packages.look_at_package("no-such-package", ">=1"))


def test_a_missing_optional_part_is_a_note_and_a_broken_one_is_wrong(installed):
    part = optional.Part("frail", "frail", "trying", "eval")
    found = only(optional.look_at_part(part))
    assert found.state == "note" and "[eval]" in found.fix and "trying" in found.found
    installed("frail", "1.0", "raise RuntimeError('torn')")
    assert only(optional.look_at_part(part)).state == "wrong"


def test_the_requirements_are_those_of_pyproject():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads(install.PYPROJECT.read_text(encoding="utf-8"))["project"]
    assert install.supported_python() == project["requires-python"]
    declared = {line.replace("[default]", "").replace(" ", "") for line in project["dependencies"]}
    assert {name + specifier for name, specifier in install.requirements().items()} == declared


@pytest.mark.parametrize("version", [(3, minor) for minor in range(8, 16)])
def test_python_is_compared_as_pip_would(version):
    assert install.allows(">=3.10,<3.14", version) == install.in_range(f"3.{version[1]}.1", ">=3.10,<3.14")


def test_damaged_whisper_weights_are_wrong_and_none_are_a_note(tmp_path, monkeypatch):
    pytest.importorskip("whisper")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert only(optional.look_at_whisper()).state == "note"
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper" / "tiny.pt").write_bytes(b"half a model")
    found = only(Check("whisper weights", optional.look_at_whisper).run())
    assert found.state == "wrong" and "damaged" in found.found and "download" in found.fix


def test_an_old_yt_dlp_is_noted():
    pytest.importorskip("yt_dlp")
    found = {finding.name: finding for finding in optional.look_at_downloads(datetime.date(2199, 1, 1))}
    assert found["download of recordings"].state == "note" and "--upgrade" in found["download of recordings"].fix
    assert found["deno"].state in ("good", "note")


# Machine and accelerator


def test_this_machine_is_described():
    found = [*machine.look_at_python(), *machine.look_at_system(), *machine.look_at_memory()]
    assert [finding.name for finding in found] == ["python", "system", "cores", "memory"]
    assert found[0].state == "good" and machine.cores() >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_containers_limit_counts_and_not_the_machines_memory(monkeypatch):
    total, free = system_memory.memory()
    assert 0 < free < total
    values = {"memory.max": 300_000_000, "memory.current": 100_000_000}
    monkeypatch.setattr(system_memory, "_number", lambda path: values[path.name])
    monkeypatch.setattr(system_memory, "_cached", lambda path: 20_000_000)
    assert system_memory.memory() == (300_000_000, 220_000_000)


def test_free_memory_is_read_from_what_macos_prints():
    text = "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:      1000.\nPages active:    7.\n"
    text += "Pages inactive:  20.\nPages speculative:   3.\nPages throttled:  0.\n"
    assert system_memory.free_of_vm_stat(text) == 1023 * 16384
    assert system_memory.free_of_vm_stat("nothing of the kind") is None


def test_torch_and_a_product_on_the_cpu_are_good():
    assert states(accelerator.look_at_torch()) == {"torch": "good", "cpu": "good"}


def test_a_wrong_product_is_found(monkeypatch):
    for dtype in (torch.float32, torch.bfloat16):
        assert accelerator.wrong_product("cpu", dtype) == ""
    real = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: real(tensor) + torch.eye(len(tensor), dtype=tensor.dtype))
    assert "96 of 9216 numbers" in accelerator.wrong_product("cpu", torch.float32)


SMI = """
if any("query" in word for word in sys.argv):
    print("NVIDIA H200, 550.54.15\\nNVIDIA A, B, 550.54.15")
else:
    print("| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4 |")"""
BROKEN_SMI = "print('Failed to initialize NVML: Driver/library version mismatch'); sys.exit(18)"


@pytest.fixture()
def no_cuda(monkeypatch, bare_path) -> Path:
    """torch without CUDA, whatever this machine has; returns the folder for nvidia-smi."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(nvidia, "_PCI", bare_path / "pci")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return bare_path


def pci_card(folder: Path, vendor: str = "0x10de", kind: str = "0x030200") -> None:
    card = folder / "pci" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text(vendor + "\n", encoding="ascii")
    (card / "class").write_text(kind + "\n", encoding="ascii")


def test_a_machine_without_a_card_is_noted(no_cuda):
    found = only(accelerator.look_at_cuda("auto"))
    assert found.state == "note" and "no NVIDIA card" in found.found


@needs_scripts
def test_a_cpu_build_beside_a_card_is_wrong_unless_the_cpu_is_asked_for(no_cuda):
    script(no_cuda, "nvidia-smi", SMI)
    found = only(accelerator.look_at_cuda("auto"))
    assert found.state == "wrong" and "CPU build" in found.found and "NVIDIA H200, NVIDIA A, B" in found.found
    assert "CUDA 12.4 or older" in found.fix
    assert only(accelerator.look_at_cuda("cpu")).state == "note"


@pytest.mark.skipif(sys.platform != "linux", reason="cards are looked for in /sys")
def test_a_card_without_a_driver_is_told_apart(no_cuda, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    pci_card(no_cuda)
    found = only(accelerator.look_at_cuda("auto"))
    assert found.state == "wrong" and "no driver" in found.found and "CUDA 12.8 build" in found.found
    assert "driver" in found.fix


@pytest.mark.skipif(sys.platform != "linux", reason="cards are looked for in /sys")
def test_other_makers_and_other_devices_of_nvidia_are_no_cards(no_cuda):
    pci_card(no_cuda, vendor="0x1002")
    assert nvidia.find_nvidia().cards == ()
    (no_cuda / "pci" / "0000:01:00.0" / "vendor").write_text("0x10de\n", encoding="ascii")
    (no_cuda / "pci" / "0000:01:00.0" / "class").write_text("0x040300\n", encoding="ascii")  # its sound
    assert nvidia.find_nvidia().cards == ()


@needs_scripts
def test_a_driver_that_does_not_run_is_told_apart(no_cuda, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    script(no_cuda, "nvidia-smi", BROKEN_SMI)
    found = only(accelerator.look_at_cuda("auto"))
    assert found.state == "wrong" and "version mismatch" in found.found and "restart" in found.fix


@needs_scripts
def test_hidden_and_refused_cards_are_told_apart(no_cuda, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    script(no_cuda, "nvidia-smi", SMI)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "unset CUDA_VISIBLE_DEVICES" in only(accelerator.look_at_cuda("auto")).fix
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")

    def too_old() -> bool:
        import warnings

        warnings.warn("The NVIDIA driver on your system is too old", stacklevel=2)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", too_old)
    found = only(accelerator.look_at_cuda("cuda"))
    assert found.state == "wrong" and "too old" in found.found


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_real_card_computes_right():
    found = list(accelerator.look_at_cuda("auto"))
    assert len(found) == torch.cuda.device_count()
    assert all(finding.state == "good" and "capability" in finding.found for finding in found)


def test_a_device_that_is_not_there_is_wrong(monkeypatch):
    from fish_speech import device

    monkeypatch.setattr(device, "probe_hardware", device.Hardware)
    assert only(Check("device", lambda: accelerator.look_at_device("cuda")).run()).state == "wrong"
    assert only(Check("device", lambda: accelerator.look_at_device("auto")).run()).state == "good"


# Room


def test_folders_that_can_be_written_are_good_and_nothing_stays_in_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set(states(room.look_at_folders()).values()) == {"good"}
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_is_wrong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").write_text("not a folder", encoding="utf-8")
    found = {finding.name: finding for finding in room.look_at_folders()}
    assert found["folder results"].state == "wrong" and found["folder results"].fix
    assert found["folder checkpoints"].state == "good"


@pytest.mark.skipif(as_root or os.name == "nt", reason="the system lets this user write anywhere, or has no modes")
def test_a_folder_that_may_not_be_written_is_wrong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o555)
    try:
        assert states(room.look_at_folders())["folder results"] == "wrong"
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no folder here that refuses even the administrator")
def test_a_folder_that_the_system_protects_is_wrong():
    found = room.look_at_folder("folder", Path("/proc/self"), "work elsewhere")
    assert (found.state, found.fix) == ("wrong", "work elsewhere")


def test_what_a_run_takes_is_counted_from_the_config(small_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from fish_speech.models import LoraConfig, load_dual_ar

    base = Base.of("1.5", small_base)
    plain = load_dual_ar(small_base)
    adapted = load_dual_ar(small_base, lora=LoraConfig(r=8, lora_alpha=16))
    weights, all_weights = (sum(p.numel() for p in model.parameters()) for model in (plain, adapted))
    assert room.count_weights(base) == (weights, all_weights - weights)
    needs = room.needs_of(base)
    assert needs.download == 0 and needs.merged == sum(path.stat().st_size for path in base.files)
    assert room.needs_of(Base.of("1.5", None)).download > 1e9
    assert room.needs_of(Base.of("1.5", tmp_path)).download == room.needs_of(Base.of("minnow", None)).download == 0


def test_a_temporary_folder_that_is_asked_for_and_not_taken_is_noted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEMP" if os.name == "nt" else "TMPDIR", str(tmp_path / "absent"))
    notes = [finding for finding in room.look_at_folders() if finding.state == "note"]
    assert "absent" in only(notes).found


def test_a_disk_or_a_memory_that_is_too_small_is_wrong(small_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = Base.of("1.5", small_base)
    assert only(room.look_at_disk(base)).state == "good"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12, 1000))
    assert only(room.look_at_disk(base)).state == "wrong"
    for free, state in ((10**12, "good"), (15 * 10**8, "note"), (10**8, "wrong"), (None, "note")):
        monkeypatch.setattr(room, "memory", lambda free=free: (10**12, free))
        assert only(room.look_at_memory_of_a_run(base, "cpu")).state == state


# Findings, and the process that makes them


def test_an_error_of_a_check_is_a_finding_and_ctrl_c_is_not():
    def look(error):
        yield Finding("first", "good", "before")
        raise error

    for error in (OSError(5, "input/output error"), ValueError(), SystemExit(3), UserError("a", "b", "c")):
        before, after = findings.guarded("odd", lambda error=error: look(error))
        assert (before.state, after.state, after.name) == ("good", "wrong", "odd") and after.found and after.fix
    with pytest.raises(KeyboardInterrupt):
        findings.guarded("odd", lambda: look(KeyboardInterrupt()))


def test_a_check_without_its_package_is_left_out_with_a_note():
    found = only(Check("far", lambda: 1 / 0, needs=("no_such_module",)).run())
    assert found.state == "note" and "no_such_module" in found.found


@given(st.lists(st.builds(Finding, st.text(), st.sampled_from(["good", "note", "wrong"]), st.text(), st.text())))
def test_a_report_is_printable_lines_that_end_with_the_count(found):
    *lines, last = report(found).split("\n")
    assert all(line.isprintable() for line in (*lines, last))
    assert len(lines) >= len(found)
    wrong = sum(finding.state == "wrong" for finding in found)
    assert last.endswith("nothing is wrong") if not wrong else f"{wrong} wrong: " in last


def test_a_report_is_aligned_and_keeps_commands_in_one_line():
    long = "word " * 60
    lines = report([Finding("a", "good", long), Finding("longer name", "wrong", "x", f"do {long}")]).splitlines()
    column = lines[0].index("word")
    assert lines[1].index("word") == column and all(len(line) <= 120 for line in lines[:-2])
    assert lines[-2].strip() == f"fix: do {long.strip()}" and lines[-3].index("x") == column
    assert lines[-1] == "1 good, 0 to note, 1 wrong: longer name"


PROGRAM = """
import json, os, sys, time
def tell(**message): print(json.dumps(message), flush=True)
for number in range(int(sys.argv[1]), 4):
    tell(begin=number, name=f"check {number}", limit_s=2.0)
    if number == 1: ENDING
    tell(finding={"name": f"check {number}", "state": "good", "found": "", "fix": ""})
tell(done=True)
"""


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("os.abort()", "SIGABRT" if os.name != "nt" else "ended with"),
        ("sys.exit('torn library')", "torn library"),
        ("time.sleep(60)", "no answer within 2 s"),
        ("print('hello')", "something else"),
    ],
)
def test_a_check_that_takes_python_down_is_wrong_and_the_others_are_made(ending, said):
    found = supervise.supervised([sys.executable, "-c", PROGRAM.replace("ENDING", ending)])
    assert [(finding.name, finding.state) for finding in found] == [
        ("check 0", "good"),
        ("check 1", "wrong"),
        ("check 2", "good"),
        ("check 3", "good"),
    ]
    assert said in found[1].found and found[1].fix


def test_a_process_that_cannot_start_is_one_finding():
    assert "no such thing" in only(supervise.supervised([sys.executable, "-c", "raise OSError('no such thing')"])).found
    silent = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert "no answer" in only(supervise.supervised(silent, start_limit_s=1.0)).found


@pytest.mark.parametrize(("state", "code"), [("good", 0), ("note", 0), ("wrong", 1)])
def test_the_exit_code_says_whether_anything_is_wrong(monkeypatch, capsys, state, code):
    monkeypatch.setattr(supervise, "diagnose", lambda *request: [Finding("a", state, "b \u202f \U0001f600")])
    assert doctor.main("minnow") == code
    assert capsys.readouterr().out.startswith(state)


def test_importing_the_doctor_and_listing_its_checks_imports_nothing_heavy():
    program = "import sys, fish_speech.doctor; from fish_speech.doctor.checks import checks_for; checks_for('minnow');"
    program += "print(*{'torch', 'numpy', 'soundfile', 'packaging', 'yaml', 'huggingface_hub'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_every_requirement_and_every_kind_of_file_has_a_check():
    named = {check.name for check in checks_for("minnow")}
    assert {f"package {name}" for name in install.requirements()} - named == {"package torch"}
    assert {f"decoding {kind.name}" for kind in KINDS} <= named


@pytest.mark.slow
def test_the_program_reports_a_broken_package_and_a_missing_ffmpeg_and_looks_at_all_else(small_base, tmp_path):
    (tmp_path / "site" / "soxr").mkdir(parents=True)
    (tmp_path / "site" / "soxr" / "__init__.py").write_text("import os; os.abort()", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    path = os.pathsep.join([str(tmp_path / "site"), str(REPO)])
    environment = {**os.environ, "PYTHONPATH": path, "PATH": str(tmp_path / "empty")}
    command = [sys.executable, "-m", "fish_speech.doctor", "--model-version", "1.5", "--device", "cpu"]
    result = subprocess.run(
        [*command, "--pretrained-ckpt-path", str(small_base)],
        env=environment, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=600,
    )  # fmt: skip
    assert result.returncode == 1 and "Traceback" not in result.stdout + result.stderr
    text = result.stdout
    assert "wrong  package soxr" in text and "wrong  ffmpeg" in text
    assert all(f"good   {name}" in text for name in ("torch", "model.pth", "model ", "codec", "decoding FLAC", "disk"))
    assert "wrong: " in text.splitlines()[-1]
    assert not list((tmp_path / "empty").iterdir())
