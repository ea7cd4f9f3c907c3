"""The Colab page, run verbatim from its first cell to its last on this checkout (make test-notebook)."""

import json

import pytest

from tests.drivers import ROOT, environment

pytestmark = pytest.mark.notebook
PAGE = ROOT / "notebooks" / "jaxnorm_colab.ipynb"
SMALL = "--norms bn gn --num-epochs 1 --num-blocks 1 --num-filters 8"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    folder = tmp_path_factory.mktemp("colab")
    (folder / "jaxnorm_code").symlink_to(ROOT)  # instead of a clone
    page = nbformat.read(PAGE, as_version=4)
    client = nbclient.NotebookClient(page, timeout=900, resources={"metadata": {"path": str(folder)}})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        patch.delenv("XLA_FLAGS", raising=False)
        patch.setenv("JAXNORM_FLAGS", SMALL)
        client.execute()
    return page, folder


def code_cells(page):
    return [cell for cell in page["cells"] if cell["cell_type"] == "code"]


def said(cell):
    """What is seen of a cell's output: a line begins again at each carriage return."""
    lines = "".join(output.get("text", "") for output in cell["outputs"]).split("\n")
    return "\n".join(line.rpartition("\r")[2] for line in lines)


def test_the_page_is_short_clean_and_names_no_address():
    text = PAGE.read_text(encoding="utf-8")
    page = json.loads(text)
    assert len(page["cells"]) <= 16
    assert all(not cell["outputs"] for cell in code_cells(page))
    assert "https://" not in text and "OWNER" not in text


def test_every_study_runs_and_shows_its_figures(executed):
    page, folder = executed
    images = [
        output for cell in code_cells(page) for output in cell["outputs"] if "image/png" in output.get("data", {})
    ]
    assert len(images) == 6
    everything = "".join(map(said, code_cells(page)))
    assert "preset: quick" in everything and "equal: True" in everything and "of 200 test images" in everything
    for name in ("compare_norms", "own_norm", "batch_size_study", "feature_evolution"):
        assert f"jaxnorm_results/{name}/report.html\n" in everything
        assert (folder / "jaxnorm_results" / name / "report.html").exists()


def test_the_output_is_quiet(executed):
    page, folder = executed
    for cell in code_cells(page):
        assert all(output["name"] == "stdout" for output in cell["outputs"] if output["output_type"] == "stream")
        assert said(cell).count("\n") <= 6 and str(folder) not in said(cell)


def test_nothing_of_colabs_jax_is_replaced(executed):
    _, folder = executed
    kept = (folder / "kept.txt").read_text().splitlines()
    assert any(line.startswith("jax==") for line in kept) and any(line.startswith("jaxlib==") for line in kept)
