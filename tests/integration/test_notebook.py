"""The tutorial notebook runs, with tiny weights, and is kept without outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from medddpm.share import share_dir

nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")
NOTEBOOK = share_dir() / "docs" / "tutorial.ipynb"


@pytest.mark.skipif(not NOTEBOOK.is_file(), reason="an installed package has no docs")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jupyter_client and its sockets
def test_the_tutorial_runs(tiny_weights: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert 'weights = "default"' in code[0].source
    code[0].source = f"weights = {str(tiny_weights)!r}\nout = {str(tmp_path)!r}"
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    text = "".join(str(output) for cell in code for output in cell.outputs)
    assert "the same bytes again: True" in text
    assert "sub-example_T1w_noisy" in text
    assert "PSNR" in text
    for cell in code[1:4]:  # a scan, a restored one, an ensemble
        assert any("text/html" in output.get("data", {}) for output in cell.outputs)
    assert (tmp_path / "scan.html").is_file()
