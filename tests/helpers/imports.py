"""Which files of the repository a module imports, read from the code: nothing is run."""

import ast
import functools
from pathlib import Path


def import_closure(root: Path, *modules: str) -> set[str]:
    """Return the files below the root that modules import, directly or not, with their own.

    Imports within functions count as well, and the `__init__.py` of every package on the way;
    what stands under `if TYPE_CHECKING` does not.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        path = _find(root, module)
        if path is None or (name := str(path.relative_to(root))) in found:
            continue
        found.add(name)
        if "." in module:
            waiting.append(module.rpartition(".")[0])
        waiting += imports_of(path)
    return found


def holds_docstring_only(path: Path) -> bool:
    """Tell whether a module holds nothing that an edit could change."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) for node in body)


def _find(root: Path, module: str) -> Path | None:
    path = root.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next(filter(Path.is_file, candidates), None)


@functools.cache
def imports_of(path: Path) -> list[str]:
    """Return the modules that a file imports by itself, and what it imports from them."""
    return _imports(ast.parse(path.read_text(encoding="utf-8")))


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.module, f"line {node.lineno}: a relative import"
        # What is imported from a package may be a module of it.
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return [name for child in node.orelse for name in _imports(child)]
    return [name for child in ast.iter_child_nodes(node) for name in _imports(child)]
