"""The Colab page, run from its first cell to its last on this checkout (make test-notebook)."""

import json

import pytest

from tests.drivers import ROOT, environment

pytestmark = pytest.mark.notebook
PAGE = ROOT / "notebooks" / "jaxnorm_colab.ipynb"
SMALL = '["--norms", "bn", "gn", "--num-epochs", "2"]'


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    folder = tmp_path_factory.mktemp("colab")
    (folder / "jaxnorm_code").symlink_to(ROOT)  # instead of a clone of the address in the first cell
    page = nbformat.read(PAGE, as_version=4)
    first = next(cell for cell in page.cells if cell.cell_type == "code")
    assert "\nFLAGS = []" in first.source
    first.source = first.source.replace("FLAGS = []", f"FLAGS = {SMALL}", 1)
    client = nbclient.NotebookClient(page, timeout=600, resources={"metadata": {"path": str(folder)}})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        patch.delenv("XLA_FLAGS", raising=False)
        client.execute()
    return page, folder


def test_the_page_is_short_clean_and_says_where_it_comes_from():
    page = json.loads(PAGE.read_text())
    assert len(page["cells"]) <= 10
    assert all(not cell["outputs"] for cell in page["cells"] if cell["cell_type"] == "code")
    first = next(cell for cell in page["cells"] if cell["cell_type"] == "code")
    assert sum(line.startswith('REPOSITORY = "https://') for line in first["source"]) == 1


def test_every_study_runs_and_shows_its_figures(executed):
    page, folder = executed
    images = [
        output for cell in page.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})
    ]
    assert len(images) == 5
    said = "".join(output.get("text", "") for cell in page.cells for output in cell.get("outputs", ()))
    assert "preset: quick" in said
    for name in ("compare_norms", "batch_size_study", "feature_evolution"):
        assert str(folder / "jaxnorm_results" / name / "report.html") in said


def test_nothing_of_colabs_jax_is_replaced(executed):
    _, folder = executed
    kept = (folder / "kept.txt").read_text().splitlines()
    assert any(line.startswith("jax==") for line in kept) and any(line.startswith("jaxlib==") for line in kept)
