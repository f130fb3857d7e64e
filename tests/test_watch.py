"""`smallwit watch`: the report of a run that goes on, to this machine alone."""

import http.client
import json
import random
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from report_run import Page, make_run, metric_rows, write_lines
from smallwit.cli import main
from smallwit.errors import UserError
from smallwit.report import watch
from smallwit.report.load import load_run
from smallwit.report.watch import LiveReport, make_server

Ask = Callable[..., tuple[int, str]]


def unfinished_run(folder: Path) -> Path:
    """A run that has measured sft and trains rl: no results yet, and the log of rl beside its checkpoints."""
    make_run(folder, n=4, steps=4, models=("sft", "rl"))
    (folder / "results.json").unlink()
    (folder / "ledger.json").unlink()
    (folder / "stages" / "01-rl" / "metrics.jsonl").unlink()
    shutil.rmtree(folder / "evaluation" / "rl")
    about = {"parameters": 65_310, "signatures": dict.fromkeys(("wordmath", "algebra", "functions"), "signed")}
    (folder / "evaluation" / "sft" / "manifest.json").write_text(json.dumps(about))
    write_lines(folder / "stages" / "01-rl" / "checkpoints" / "key.jsonl", metric_rows("rl", 3, random.Random(0)))
    return folder


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unfinished_run(tmp_path_factory.mktemp("runs") / "going")


@pytest.fixture(scope="module")
def ask(run_dir: Path) -> Iterator[Ask]:
    """Ask a server that watches the run: status and text."""
    with make_server(run_dir, 0) as server:
        assert server.server_address[0] == "127.0.0.1"  # nobody else can reach it
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def get(path: str, host: str | None = None) -> tuple[int, str]:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
            connection.request("GET", path, headers={} if host is None else {"Host": host})
            with connection.getresponse() as reply:
                return reply.status, reply.read().decode()

        yield get
        server.shutdown()


def test_a_run_that_goes_on_has_the_scores_and_curves_so_far(run_dir: Path, tmp_path: Path, ask: Ask) -> None:
    status, html = ask("/")
    assert status == 200
    (tmp_path / "page.html").write_text(html)
    page = Page(tmp_path / "page.html")
    assert "this is what there is so far" in page.text
    assert "sft has the highest score" in page.text
    titles = [attributes.get("aria-label") or "" for _, attributes in page.tags]
    assert any(title.startswith("rl: Reward, 3 points") for title in titles)


def test_the_served_page_asks_its_own_server_and_no_other(ask: Ask) -> None:
    _, page = ask("/")
    _, version = ask("/version")
    assert f'data-version="{version}"' in page
    assert "connect-src 'self'" in page


def test_the_saved_report_asks_nobody(tmp_path: Path) -> None:
    make_run(tmp_path, n=2, steps=2, models=("sft",))
    watch.LiveReport(tmp_path)
    assert not (tmp_path / "report.html").exists()
    assert main(["report", str(tmp_path)]) == 0
    assert "connect-src" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("host", ["evil.example:8080", "evil.example", "127.0.0.1.evil.example", ""])
def test_a_request_for_another_name_is_refused(ask: Ask, host: str) -> None:
    for path in ("/", "/version"):
        assert ask(path, host)[0] == 403


def test_nothing_but_the_report_is_served(ask: Ask) -> None:
    for path in ("/results.json", "/../recipe.resolved.yaml", "//etc/passwd", "/version/"):
        assert ask(path)[0] == 404


def test_the_page_is_made_anew_when_files_change_and_not_too_often(tmp_path: Path) -> None:
    report = LiveReport(unfinished_run(tmp_path / "run"))
    first = report.version
    report.refresh()
    assert report.version == first
    write_lines(tmp_path / "run/stages/01-rl/checkpoints/key.jsonl", [{"step": 1, "loss": 1.0}])
    report.refresh()  # right after the page was made
    assert report.version == first
    report._due = 0.0
    report.refresh()
    assert report.version != first


def test_a_line_that_is_being_written_is_no_unreadable_line(tmp_path: Path) -> None:
    log = unfinished_run(tmp_path) / "stages" / "01-rl" / "checkpoints" / "key.jsonl"
    log.write_text(log.read_text() + '{"step": 4, "lo')
    assert load_run(tmp_path, unfinished=True).notes == []
    log.write_text('{"step": 1, "lo\n{"step": 2, "loss": 1.0}\n')
    [note] = load_run(tmp_path, unfinished=True).notes
    assert "1 unreadable line left out" in note


def test_a_port_in_use_and_a_folder_that_is_no_run_are_told_in_one_line(
    tmp_path: Path, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["watch", str(run_dir), "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"smallwit: --port {port}: cannot be used on 127.0.0.1")
    assert said.count("\n") == 1
    with pytest.raises(UserError, match=r"recipe\.resolved\.yaml: cannot be read"):
        LiveReport(tmp_path)


def test_ctrl_c_ends_it_quietly(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(server: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.ThreadingHTTPServer, "serve_forever", interrupted)
    assert main(["watch", str(run_dir), "--port", "18123"]) == 0
    said = capsys.readouterr()
    assert said.out == f"report of {run_dir}: http://127.0.0.1:18123/ until Ctrl-C\n"
    assert said.err == ""
