"""Mutation testing: faults planted one at a time, and how many of them the tests notice.

    make mutation                              all mutants of file.py, arrays.py and the methods: hours
    make mutation ARGS="--sample 60"           60 of each file, spread evenly: half an hour
    make mutation ARGS="--only arrays -v"      one file, each survivor named

A mutant is a copy of the package in which one comparison, sign, constant, condition or statement is another. It
counts as killed when a test fails or hangs. What only words a message, a type or a docstring is left alone. Every
mutant has a process of its own, forked from one in which the libraries are loaded already.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "fusionlearn"
RESULT = ROOT / "benchmarks" / "results" / "mutation.json"

# The tests that speak of each file; those that do not exist are passed over.
SLOW = "restart or killed or fingerprint or other_writer or many_processes or another_writer or every_process"
COMMON = ["tests/test_run.py", "tests/test_members.py"]
METHOD = [*COMMON, "tests/test_methods.py", "tests/test_laws.py"]
TARGETS: dict[str, list[str]] = {
    "arrays": ["tests/test_arrays.py", *COMMON, "tests/test_laws.py"],
    "file": ["tests/test_file.py", "tests/test_types.py", "tests/test_attacks.py", *COMMON],
    "methods/ridge": ["tests/test_ridge.py", *METHOD],
    "methods/gaussian": ["tests/test_gaussian.py", *METHOD],
    "methods/ensemble": ["tests/test_ensemble.py", *METHOD],
    "methods/forest": ["tests/test_forest.py", *METHOD],
}
LOADED = ("numpy", "pytest", "hypothesis", "sklearn.ensemble", "sklearn.linear_model", "cryptography.exceptions",
          "safetensors.numpy", "rfc8785", "threadpoolctl", "array_api_compat.numpy", "scipy.linalg")  # fmt: skip

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.MatMult: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, what was changed, and the changed source, one fault at a time."""
    tree = ast.parse(source)
    whole = ast.unparse(tree)
    skipped = {id(inner) for node in ast.walk(tree) for part in _left_alone(node) for inner in ast.walk(part)}
    for node in ast.walk(tree):
        if id(node) not in skipped:
            for told, change in _changes(node):
                changed = _applied(tree, node, change)
                if changed != whole:
                    yield getattr(node, "lineno", 0), told, changed


def _left_alone(node: ast.AST) -> list[ast.AST]:
    """Types, decorators, messages: a fault there is no fault of what the code does."""
    found: list[Any] = []
    if isinstance(node, ast.Raise | ast.ImportFrom | ast.Import | ast.JoinedStr):
        found += [node] if not isinstance(node, ast.Raise) else [node.exc, node.cause]
    if isinstance(node, ast.FunctionDef):
        annotations = [arg.annotation for arg in ast.walk(node.args) if isinstance(arg, ast.arg)]
        found += [*node.decorator_list, node.returns, *annotations]
    if isinstance(node, ast.ClassDef):
        found += [*node.decorator_list, *node.bases]
    if isinstance(node, ast.AnnAssign):
        found.append(node.annotation)
    if isinstance(node, ast.Assert):
        found.append(node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("cast", "TypeVar"):
        found += [node.args[0]]
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        found.append(node)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        found.append(node)
    return [part for part in found if part is not None]


def _changes(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """What may be done to a node: words for it, and a function of its copy that gives the node to put there."""
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            other = COMPARISONS[type(operator)]
            told = f"{type(operator).__name__} → {other.__name__}"
            yield told, lambda n, i=i, other=other: _set(n.ops, i, other(), n)
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        other = ARITHMETIC[type(node.op)]
        yield f"{type(node.op).__name__} → {other.__name__}", lambda n: _with(n, op=other())
    elif isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        yield "another operator", lambda n: _with(n, op=ARITHMETIC[type(n.op)]())
    elif isinstance(node, ast.BoolOp):
        yield "and ↔ or", lambda n: _with(n, op=ast.Or() if isinstance(n.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "sign or not gone", lambda n: n.operand
    elif isinstance(node, ast.IfExp | ast.If | ast.While):
        yield "condition turned round", lambda n: _with(n, test=ast.UnaryOp(ast.Not(), n.test))
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield "filter gone", lambda n: _with(n, ifs=[])
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield f"{node.value} turned round", lambda n: ast.Constant(not n.value)
        elif isinstance(node.value, int | float):
            yield f"{node.value} + 1", lambda n: ast.Constant(n.value + 1)
        elif isinstance(node.value, str | bytes) and node.value:
            yield "other text", lambda n: ast.Constant(n.value + (b"X" if isinstance(n.value, bytes) else "X"))
    elif isinstance(node, ast.Raise):
        yield "raise gone", lambda _: ast.Pass()
    elif isinstance(node, ast.Return) and node.value is not None:
        yield "return None", lambda _: ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Yield):
        yield "statement gone", lambda _: ast.Pass()
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("min", "max"):
        yield "min ↔ max", lambda n: _with(n, func=ast.Name("max" if n.func.id == "min" else "min", ast.Load()))


def _with(node: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def _set(items: list[Any], i: int, value: Any, node: Any) -> Any:
    items[i] = value
    return node


def _applied(tree: ast.Module, target: ast.AST, change: Any) -> str:
    """The source of the tree with one node changed."""
    index = next(i for i, node in enumerate(ast.walk(tree)) if node is target)
    fresh = copy.deepcopy(tree)
    node = next(node for i, node in enumerate(ast.walk(fresh)) if i == index)

    class Swap(ast.NodeTransformer):
        def visit(self, visited: ast.AST) -> Any:
            return change(visited) if visited is node else self.generic_visit(visited)

    return ast.unparse(ast.fix_missing_locations(Swap().visit(fresh)))


def survives(folder: Path, tests: list[str], limit: float) -> bool:
    """Whether all tests pass on the package in `folder`, in a process of their own."""
    child = os.fork()
    if child == 0:
        os.setsid()
        _run_tests(folder, tests)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _run_tests(folder: Path, tests: list[str]) -> None:
    """Never returns: the process ends with 0 if the tests pass."""
    code = 1
    try:
        import pytest

        os.environ |= {"PYTHONPATH": str(folder), "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis")}
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            options = [
                "-x",
                "-q",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:xdist",
                "--timeout=0",
                "--tb=no",
                "--assert=plain",
            ]
            code = int(pytest.main([*options, "-k", f"not ({SLOW})", *tests]))
    finally:
        os._exit(code)


def examined(target: str, sample: int, verbose: bool) -> dict[str, Any]:
    """Mutants of one file, planted and tested."""
    tests = [name for name in TARGETS[target] if (ROOT / name).exists()]
    source = (PACKAGE / f"{target}.py").read_text("utf-8")
    found = list(mutants(source))
    chosen = found if not sample or sample >= len(found) else [found[i * len(found) // sample] for i in range(sample)]
    survivors: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copytree(PACKAGE, folder / "fusionlearn", ignore=shutil.ignore_patterns("__pycache__"))
        path = folder / "fusionlearn" / f"{target}.py"
        start = time.monotonic()
        if not survives(folder, tests, 600):
            sys.exit(f"the tests of {target} fail without any mutant: {' '.join(tests)}")
        limit = 15 + 4 * (time.monotonic() - start)
        for number, (line, told, changed) in enumerate(chosen, 1):
            path.write_text(changed, "utf-8")
            if survives(folder, tests, limit):
                survivors.append(f"line {line}: {told}")
                if verbose:
                    sys.stdout.write(f"  survived: {target}.py {survivors[-1]}\n")
            if verbose and number % 20 == 0:
                sys.stdout.write(f"  {number}/{len(chosen)}\n")
            sys.stdout.flush()
    killed = len(chosen) - len(survivors)
    return {
        "mutants": len(found),
        "tried": len(chosen),
        "killed": killed,
        "rate": round(killed / len(chosen), 3),
        "tests": tests,
        "survivors": survivors,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Plants faults one at a time and counts those the tests notice.")
    parser.add_argument("--sample", type=int, default=0, help="mutants of each file, spread evenly; 0: all")
    parser.add_argument("--only", action="append", choices=sorted(TARGETS), help="these files only")
    parser.add_argument("-v", "--verbose", action="store_true", help="name each survivor as it is found")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    for name in LOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    results = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {}
    for target in options.only or TARGETS:
        found = results[f"{target}.py"] = examined(target, options.sample, options.verbose)
        sys.stdout.write(f"{target}.py: {found['killed']} of {found['tried']} killed, {found['rate']:.1%}\n")
        sys.stdout.flush()
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if min(results[f"{target}.py"]["rate"] for target in options.only or TARGETS) < 0.85:
        sys.exit("a file is below 85 %")


if __name__ == "__main__":
    main()
