"""The words of the library: retired names stay retired, messages have one form, functions are verbs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import convexadam

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(convexadam.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.py")])

RETIRED = {
    "GivenGrid",
    "keep_volume",
    "moved_as",
    "moving_kind",
    "compared_percent",
    "feature_difference_before",
    "feature_difference_after",
    "difference_before",
    "difference_after",
    "richer_gain",
    "thetas",
    "THETAS",
    "on_cells",
    "on_control_points",
    "on_voxels",
    "field_smoothing",
    "one_way",
    "largest_step",
    "outlier_mm",
    "robustness",
    "conspicuous",
    "unsuspicious",
    "Comparison",
    "Curved",
    "Descent",
    "Scan",
    "reach_of",
    "mirroring",
    "resample_onto",
    "same_as",
    "residual_of_inverse",
    "hd95_by_area",
    "worst_mean",
    "try_out",
    "ReadOff",
    "read_off",
    "Bench",
    "evidence_under",
    "LandmarkGuide",
    "PlacedGuide",
    "Described",
    "BothWays",
    "Subject",
    "Placed",
    "Given",
    "PairCost",
    "temperature",
    "draws",
    "onto",
    "keeps_volume",
    "keeps_conspicuous",
    "searched_throughout",
    "refined_throughout",
    "placed",
    "begun",
    "ended",
    "hidden",
    "pulled_onto",
    "still",
    "shrunk",
    "pooled_pair",
    "subcell",
    "nodes_to_voxels",
    "nodes_to_nodes",
    "in_nodes",
    "checked_count",
    "checked_number",
    "WrongUse",
    "BenchPlan",
}
"""Names that were replaced by the field's standard terms; the changelog has both."""

RETIRED_MEMBERS = {
    "IsotropicGrid": {"keep"},
    "LinearAlignment": {"start", "voxels", "rounds", "gain", "richer_gain", "keep"},
    "Intensity": {"low", "high"},
    "Lncc": {"floor"},
    "Refinement": {"smoothing", "nodes", "free", "guided"},
    "Level": {"smoothing", "field_smoothing", "one_way"},
    "ConvexSearch": {"nodes", "thetas"},
    "LabelFeatures": {"balance", "background"},
    "ProbabilityFeatures": {"balance", "background"},
    "VolumePreserving": {"where"},
    "Grid": {"to_mm", "to_voxels", "described", "same_as"},
    "Transform": {"after", "resample_onto"},
    "RegistrationResult": {"seconds", "moved_as", "moving_kind"},
    "Evaluator": {"try_out"},
}
"""Fields and methods of classes whose names are ordinary words elsewhere."""

NOUNS = {
    "coupled_convex",
    "coupled_argmin",
    "damped_step",
    "pooled_mind_ssc",
    "folded_percent",
    "folded_share",
    "shifted_log_spread",
    "pooled_memory_bytes",
    "squared_slope",
    "_squared_norm",
    "_squared_residuals",
    "_weighted_sum",
    "_weighted_mean",
    "_directed_distance",
    "compiled_for_float32",
    "requested_backend",
    "wrapped",
    "field_from_coordinates",
    "field_to_coordinates",
    "_field_from_itk",
    "_field_from_voxels",
}
"""Functions that are named by the quantity that they return, or by a term of the papers."""

VERBS = re.compile(
    r"(run|open|accept|unfold|convert|find|read|get|set|embed|feed|need|add|load|build|hold|send|extend|append|"
    r"weight|world|field|flatten|coarsen|sharpen|abdomen|bound|round|pad|speed|seed|shed)$"
)
PARTICIPLE = re.compile(r"(ed|en|wn|un|ght|pt|ld)$|^found$")


def identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.arg, ast.keyword)) and node.arg:
            yield node.arg
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id


def members(node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            yield item.name
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            yield item.target.id


def test_retired_names_are_not_used() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not RETIRED & {name.lstrip("_") for name in identifiers(tree)}, path
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                assert not RETIRED_MEMBERS.get(node.name, set()) & set(members(node)), f"{path}: {node.name}"


def test_the_classes_with_retired_members_exist() -> None:
    names = {
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    assert set(RETIRED_MEMBERS) <= names


def test_retired_names_are_not_documented() -> None:
    # words of the prose
    ordinary = {
        "Comparison",
        "mirroring",
        "placed",
        "begun",
        "ended",
        "hidden",
        "still",
        "draws",
        "onto",
        "temperature",
        "Subject",
        "Given",
    }
    for path in PAGES:
        words = set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
        assert not (RETIRED - ordinary) & words, path


def raised_texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and literal text of each message that is raised or built for raising."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
            continue
        name = ast.unparse(node.exc.func)
        parts = [x.value for x in ast.walk(node.exc) if isinstance(x, ast.Constant) and isinstance(x.value, str)]
        if name.endswith("Error") and name not in {"AssertionError", "NotImplementedError"}:
            yield node.lineno, "".join(parts)


def test_messages_have_one_form() -> None:
    for path in FILES:
        for line, text in raised_texts(ast.parse(path.read_text(encoding="utf-8"))):
            assert not re.search(r"\bcame\b|\bcame;|, but ", text), f"{path.name}:{line}: {text}"
            if len(re.findall(r"[a-z]{2,}", text)) > 2:  # others pass on a message
                # missing packages and files, and pairs that failed, are no wrong values
                assert re.search(r"\bmust\b|\bcannot\b|\bneeds?\b.*pip install|pairs failed|there is no file", text), (
                    f"{path.name}:{line}: {text}"
                )


def test_functions_are_verbs() -> None:
    """No function is named by a participle (``placed``, ``_known``), which would say a state instead of an action."""
    trees = [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in FILES]
    for path, node in ((path, node) for path, tree in trees for node in ast.walk(tree)):
        if not isinstance(node, ast.FunctionDef) or node.name in NOUNS:
            continue
        if any("property" in ast.unparse(decorator) for decorator in node.decorator_list):
            continue
        first = node.name.strip("_").split("_")[0]
        assert not PARTICIPLE.search(first) or VERBS.search(first), f"{path.name}: {node.name}"
