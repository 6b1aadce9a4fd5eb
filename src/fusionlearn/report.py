"""The report: what the coordinator can know about single clients, from the updates alone and a second pass over them.

For each client its share of the records, the fused model's loss on its records, the loss of a model fused without
it (both computed from statistics, no data needed), and every column whose mean differs from the other clients' with
the likely cause. It speaks of single clients, so it is a file of its own and never inside the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fusionlearn import arrays, units
from fusionlearn.arrays import Arrays
from fusionlearn.errors import UpdateError
from fusionlearn.file import digest
from fusionlearn.fixed import one_blas_thread
from fusionlearn.keys import fingerprint
from fusionlearn.method import Moments
from fusionlearn.problem import Number
from fusionlearn.run import Answer
from fusionlearn.types import Model, Report, Task, Total

FAR = 3.0  # standard deviations of the others' records at which a client's mean is called different
DOMINATES = 0.8  # share of all records at which one client, or one class, dominates
MOST_WORK = 2e11  # operations of refitting without each client; beyond, that column is left out


def diagnose(
    task: Task,
    model: Model,
    report: Report,
    answers: Iterable[Answer],
    names: Mapping[str, str] | None = None,
) -> Report:
    """The report with a row for each client and the notices that follow from them.

    answers  the updates and totals that were fused, read a second time; those that are not members are passed over
    names    digest -> what people call that client, such as the file's name
    """
    members = {name for name, _ in report.members}
    moments: dict[str, Moments | None] = {}
    rows: list[dict[str, Any]] = []
    total: Arrays | None = None
    refit = task.method.additive and _affordable(task, len(members))
    kept: dict[str, Arrays] = {}
    for answer in answers:
        name = digest(answer)
        inside = {member for member, _ in answer.members} if isinstance(answer, Total) else {name}
        if not inside <= members or name in moments:
            continue
        moments[name] = task.method.moments(answer.arrays, task.problem)
        rows.append(_row(task, model, answer, (names or {}).get(name, ""), moments[name]))
        if refit:
            total = arrays.add(total, answer.arrays) if total is not None else answer.arrays
            if not isinstance(answer, Total):
                kept[name] = answer.arrays
    for row in rows:
        row["loss_without"] = None
        if total is not None and row["loss"] is not None and row["digest"] in kept and len(rows) > 1:
            row["loss_without"] = _loss_without(task, total, kept[row["digest"]])
    known = [moment.count for moment in moments.values() if moment is not None]
    for row in rows:
        row["share"] = row["records"] / sum(known) if row["records"] is not None and len(known) == len(rows) else None
    notices = [
        *report.findings.get("notices", []),
        *_about_columns(task, rows, moments),
        *_about_shares(task, rows),
        *general_notices(report.findings),
    ]
    findings = {**report.findings, "clients": rows, "notices": notices}
    return dataclasses.replace(report, findings=findings)


def _affordable(task: Task, clients: int) -> bool:
    return 10.0 * clients * task.problem.num_features**3 <= MOST_WORK


def _row(task: Task, model: Model, answer: Answer, name: str, moments: Moments | None) -> dict[str, Any]:
    counts = None
    if moments is not None and moments.class_count is not None:
        counts = dict(zip(task.problem.labels, moments.class_count.astype(int).tolist(), strict=True))
    return {
        "client": name or (fingerprint(answer.signer) if answer.signer else digest(answer)[:12]),
        "digest": digest(answer),
        "signer": answer.signer,
        "total_of": len(answer.members) if isinstance(answer, Total) else None,
        "records": None if moments is None else int(moments.count),
        "classes": counts,
        "loss": task.method.loss(model.arrays, answer.arrays, task.problem),
    }


def _loss_without(task: Task, total: Arrays, own: Arrays) -> float | None:
    """The loss on one client's records of the model fused from all the others."""
    rest = arrays.subtract(total, own)
    try:
        with one_blas_thread():
            fused, _ = task.method.fuse([rest], task.problem, task.prior, rng=np.random.default_rng(0))
    except UpdateError:  # the others hold one class only
        return None
    return task.method.loss(fused, own, task.problem)


def _about_columns(task: Task, rows: list[dict[str, Any]], moments: Mapping[str, Moments | None]) -> list[str]:
    """A sentence for each number column in which a client differs from the others beyond chance."""
    known = [(row, found) for row in rows if (found := moments[row["digest"]]) is not None and found.mean is not None]
    if len(known) < 2 or len(task.encoder.encoders) > 1:
        return []
    told = []
    for j, name in enumerate(task.problem.feature_names):
        column = task.schema.columns.get(name)
        if not isinstance(column, Number):
            continue
        for row, own in known:
            others = [moment for other, moment in known if other is not row]
            sentence = _about_column(name, column, row["client"], j, own, others)
            if sentence:
                told.append(sentence)
    return told


def _about_column(name: str, column: Number, client: str, j: int, own: Moments, others: list[Moments]) -> str | None:
    center, scale = column.center or 0.0, column.scale or 1.0
    count = sum(other.count for other in others)
    mean = sum(other.count * _mean(other, j) for other in others) / count
    square = sum(_square(other, j) for other in others) / count
    spread = float(np.sqrt(max(square - mean**2, 0.0)))
    here, there = center + scale * _mean(own, j), center + scale * mean
    width = float(np.sqrt(max(_square(own, j) / own.count - _mean(own, j) ** 2, 0.0)))
    if own.count > 1 and width <= 1e-6 and spread > 1e-3:
        return f"{name} at {client} is the same in every record: a missing code, or not recorded?"
    if spread <= 0 or abs(_mean(own, j) - mean) <= FAR * spread or own.count < 2:
        return None
    ratio = there / here if here else float("inf")
    if not np.isfinite(ratio) or ratio <= 0:
        return f"{name} at {client} has mean {here:.4g}, the others {there:.4g}: another code or unit?"
    unit = units.likely(name, column.unit, ratio)
    times = f"{ratio:.1f} times lower" if ratio > 1 else f"{1 / ratio:.1f} times higher"
    return f"{name} at {client} is {times} than elsewhere: {unit + '?' if unit else 'another unit, or other patients?'}"


def _mean(moments: Moments, j: int) -> float:
    assert moments.mean is not None
    return float(moments.mean[j])


def _square(moments: Moments, j: int) -> float:
    """Σ x_j² over the client's rows, as far as the update tells."""
    second = moments.second
    if second is None:
        return moments.count * _mean(moments, j) ** 2
    own = second[j + 1] if second.ndim == 1 else second[j + 1, j + 1]
    weight = second[0] if second.ndim == 1 else second[0, 0]
    return float(own) * moments.count / float(weight)


def _about_shares(task: Task, rows: list[dict[str, Any]]) -> list[str]:
    told = []
    for row in rows:
        if row["share"] is not None and row["share"] > DOMINATES and len(rows) > 1:
            told.append(f"{row['client']} holds {row['share']:.0%} of all records: the model is mostly its own.")
        if row["classes"] is not None:
            held = [label for label, count in row["classes"].items() if count > 0]
            if len(held) == 1:
                told.append(f"{row['client']} holds records of class '{held[0]}' only.")
    counted = [row["classes"] for row in rows]
    if counted and all(classes is not None for classes in counted):
        totals = {label: sum(classes[label] for classes in counted) for label in task.problem.labels}
        everything = sum(totals.values())
        told += [
            f"class '{label}' makes up {count / everything:.0%} of all records: accuracy alone will flatter the model."
            for label, count in totals.items()
            if everything and count / everything > DOMINATES
        ]
    return told


def general_notices(findings: Mapping[str, Any]) -> list[str]:
    """Sentences about the clients together that fusing alone can tell."""
    absent, constant = findings.get("absent_classes", []), findings.get("constant_columns", [])
    reason = findings.get("reason")  # of `auto`
    return [
        *([str(reason)] if reason else []),
        *(f"no client holds class '{label}': the model will never predict it." for label in absent),
        *(f"column '{name}' is constant over all clients: it has no say." for name in constant),
    ]
