"""What every notebook keeps to: narrative and public calls, never machinery."""

import ast
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PUBLIC = {"agentfarm", "agentfarm.evals", "agentfarm.notebook"}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def cells(request):
    return nbformat.read(request.param, as_version=4).cells


def code(cells):
    return [cell for cell in cells if cell.cell_type == "code"]


def nodes(cells, kind):
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for cell in code(cells):
        tree = compile(cell.source, cell.id, "exec", flags)
        yield from (node for node in ast.walk(tree) if isinstance(node, kind))


def test_cells_are_short(cells):
    assert [cell.id for cell in code(cells) if len(cell.source.splitlines()) > 10] == []


def test_there_is_at_most_one_function_and_no_class(cells):
    assert len(list(nodes(cells, (ast.FunctionDef, ast.AsyncFunctionDef)))) <= 1
    assert list(nodes(cells, ast.ClassDef)) == []


def test_only_public_parts_are_imported(cells):
    for node in nodes(cells, ast.Import):
        names = [alias.name for alias in node.names]
        assert [name for name in names if name.startswith("agentfarm")] == []
    for node in nodes(cells, ast.ImportFrom):
        if node.module.split(".")[0] == "agentfarm":
            assert node.module in PUBLIC
            assert [alias.name for alias in node.names if alias.name[0] == "_"] == []


def test_it_asserts_and_only_compared_outputs_are_kept(cells):
    assert list(nodes(cells, ast.Assert))
    for cell in code(cells):
        compared = "# NBVAL_CHECK_OUTPUT" in cell.source
        assert bool(cell.outputs) == compared, cell.id
        # nbval compares with a cell that has run; nbstripout keeps a tagged one.
        assert (cell.execution_count is not None) == compared, cell.id
        assert ("keep_output" in cell.metadata.get("tags", [])) == compared, cell.id


def test_it_begins_by_saying_what_it_is_for(cells):
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
