"""`innerview page`: a notebook in, one offline page out, or a plain line that says why not."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest

from innerview.cli.execution import needed
from innerview.cli.main import main
from innerview.errors import InnerviewError


def notebook(folder: Path, *cells: tuple[str, str]) -> Path:
    make = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    path = folder / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[make[kind](source) for kind, source in cells]), path)
    return path


def test_a_notebook_becomes_a_page_of_prose_code_and_what_its_cells_gave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = notebook(tmp_path, ("markdown", "# Two & two\n\nA *sum* <b>raw</b>."), ("code", "print(2 + 2, '<')"))
    before = path.read_bytes()
    assert main(["page", str(path), "--execute", "-o", str(tmp_path / "deep/out.html")]) == 0
    page = (tmp_path / "deep/out.html").read_text("utf-8")
    assert "<title>Two &amp; two</title>" in page
    assert "A <em>sum</em> &lt;b&gt;raw&lt;/b&gt;." in page
    assert '<pre class="iv-stream">4 &lt;</pre>' in page
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert path.read_bytes() == before
    assert "[ 1/1] Two & two: print(2 + 2" in capsys.readouterr().out


def test_without_execute_no_kernel_starts_and_the_page_lies_beside_the_notebook(tmp_path: Path) -> None:
    path = notebook(tmp_path, ("code", "raise SystemError('ran')"))
    assert main(["page", str(path)]) == 0
    page = path.with_suffix(".html").read_text("utf-8")
    assert "<title>small</title>" in page
    assert "SystemError" in page and 'class="iv-error"' not in page


@pytest.mark.parametrize(
    ("content", "said", "status"),
    [(None, "no notebook at", 2), (b"not json", "is no notebook", 1), (b"\xff\xfe", "is no notebook", 1)],
)
def test_what_is_no_notebook_is_refused_with_its_path_and_the_way_out(
    content: bytes | None, said: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "given.ipynb"
    if content is not None:
        path.write_bytes(content)
    assert main(["page", str(path)]) == status
    line = capsys.readouterr().err
    assert said in line and str(path) in line and ".ipynb" in line


@pytest.mark.parametrize("folder", ["/", ".", "{folder}"])
def test_a_folder_is_no_notebook(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["page", folder.format(folder=tmp_path)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "cannot read" in line and ".ipynb" in line


def test_a_page_that_cannot_be_written_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = notebook(tmp_path, ("markdown", "# One"))
    (tmp_path / "a file").write_text("")
    for output, said in (
        (tmp_path, "is a folder; name the .html file"),
        (tmp_path / "a file/out.html", "cannot write"),
        (Path("/proc/x.html"), "cannot write /proc/x.html"),
    ):
        assert main(["page", str(path), "-o", str(output)]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and said in line


def test_a_folder_for_an_output_is_refused_before_any_cell_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = notebook(tmp_path, ("code", "open('ran', 'w').close()"))
    assert main(["page", str(path), "--execute", "-o", str(tmp_path)]) == 2
    assert not (tmp_path / "ran").exists()


def test_a_cell_that_fails_stops_the_page_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = notebook(tmp_path, ("code", "1 / 0"))
    assert main(["page", str(path), "--execute"]) == 1
    assert "a cell failed with ZeroDivisionError: division by zero" in capsys.readouterr().err
    assert not path.with_suffix(".html").exists()


def test_a_cell_that_takes_too_long_says_how_to_allow_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = notebook(tmp_path, ("code", "import time; time.sleep(60)"))
    assert main(["page", str(path), "--execute", "--timeout-s", "1"]) == 1
    assert "longer than 1 s" in capsys.readouterr().err


def test_without_the_extra_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nbclient", None)
    with pytest.raises(InnerviewError, match=r"pip install 'innerview\[export\]'"):
        needed("nbclient")


def test_the_version_is_the_one_that_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.match(r"innerview \S+", capsys.readouterr().out)
