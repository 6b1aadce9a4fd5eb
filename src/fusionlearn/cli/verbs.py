"""The three verbs and what surrounds them, on files: new, pretrain, check, summarize, fuse, predict, evaluate …"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from fusionlearn import encoder, file, keys, method, run
from fusionlearn.cli.base import (
    MEMBERS_ROOM,
    PREDICT_ROWS,
    Answers,
    Bar,
    json_option,
    kept_rows,
    key_options,
    load_map,
    main,
    map_options,
    naming,
    open_source,
    own_key,
    path_type,
    progress,
    read_model,
    read_task,
    say,
    show_cells,
    show_result,
    showing,
    signed,
    sized,
    tell_ignored,
    trust_options,
    watched,
    watched_by_a_person,
)
from fusionlearn.errors import DataError, PrivacyError, SettingsError, UpdateError
from fusionlearn.types import SMALL_CELL, Model, Noun, Report, Task, Total, Update

MOST_ARRAYS = 6  # of an update, named on the page


# --- the coordinator ------------------------------------------------------------------------------------------------


@main.command()
@click.argument("toml", type=path_type())
@click.option("-o", "--output", type=path_type(), required=True, help="The task file to write.")
@key_options
@json_option
def new(toml: Path, output: Path, key: Path | None, unsigned: bool, as_json: bool) -> None:
    """Make a signed task from settings (see docs/reference/task-toml.md)."""
    from fusionlearn import settings

    task = signed(settings.task_from_toml(toml), key, unsigned)
    file.write(output, task)
    problem = task.problem
    upload = sum(spec.max_bytes for spec in task.method.declare(problem, task.prior).values())
    value = {
        "task": str(output), "digest": file.digest(task), "signer": task.signer, "name": task.name,
        "kind": problem.kind, "features": problem.num_features, "method": task.method.name, "upload_bytes": upload,
    }  # fmt: skip
    classes = f", {len(problem.labels)} classes" if problem.labels else ""
    show_result(as_json, value, [
        f"Wrote {output}: '{task.name}', {problem.kind}, {problem.num_features} features{classes}.",
        f"Method {task.method.name}: each client uploads about {sized(upload)}, once.",
        f"Privacy '{task.privacy.mode}', small cells {task.privacy.small_cells}.",
        f"Digest {file.digest(task)[:16]}…, " + _signer_text(task),
    ])  # fmt: skip


def _signer_text(noun: Noun) -> str:
    return f"signed by {keys.fingerprint(noun.signer)}." if noun.signer else "not signed."


@main.command()
@click.argument("task_path", metavar="TASK", type=path_type())
@click.argument("public_data", type=path_type())
@click.option("-o", "--output", type=path_type(), required=True, help="The task file to write, with its prior filled.")
@click.option("--epochs", type=click.IntRange(0), help="Passes over the public rows [default: a client's].")
@map_options
@trust_options
@key_options
@json_option
def pretrain(
    task_path: Path, public_data: Path, output: Path, epochs: int | None, map_path: Path | None, show_values: bool,
    allow_unsigned: bool, key: Path | None, unsigned: bool, as_json: bool,
) -> None:  # fmt: skip
    """Fill a task's prior from public data: a network's weights, an encoder's filters. Clients start from it."""
    from fusionlearn import pretrain as module

    task = read_task(task_path, allow_unsigned)
    source = open_source(public_data, task.schema, map_path)
    tell_ignored(source)
    pieces = list(watched(source, run.chunk_rows(task), "reading"))
    data = {name: _joined([piece[name] for piece in pieces]) for name in pieces[0]} if pieces else {}
    with showing(show_values, source, task.schema), _training_bar():
        made = module.pretrain(task, data, epochs=epochs, place=source.place)
    made = signed(made, key, unsigned)
    size = file.write(output, made)
    filled = sorted(set(made.prior) - set(task.prior)) or sorted(made.prior)
    value = {
        "task": str(output), "digest": file.digest(made), "signer": made.signer, "bytes": size, "arrays": filled,
    }  # fmt: skip
    show_result(
        as_json,
        value,
        [f"Wrote {output} ({sized(size)}): {len(filled)} prior arrays learned, {_signer_text(made)}"],
    )


def _joined(parts: list[Any]) -> Any:
    """Cells of one column out of several pieces."""
    if isinstance(parts[0], list | tuple):
        return [cell for part in parts for cell in part]
    import numpy as np

    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@contextlib.contextmanager
def _training_bar() -> Iterator[None]:
    """While networks are trained inside the block: epoch, loss and time left."""
    from fusionlearn import training

    bars: list[Bar] = []

    def seen(epoch: training.Epoch) -> None:
        if not bars:  # made now: before the first epoch another bar may be on the terminal
            bars.append(Bar("training", 1.0))
        bars[0].say(_epoch_text(epoch))
        bars[0].to(epoch.number / epoch.of)

    try:
        with training.watching(seen):
            yield
    finally:
        for bar in bars:
            bar.close()


def _epoch_text(epoch: Any) -> str:
    return f"epoch {epoch.number} of {epoch.of}, loss {epoch.loss:.4f}, {epoch.seconds_left:.0f} s left"


@main.command()
@click.argument("task_path", metavar="TASK", type=path_type())
@click.argument("update_paths", metavar="UPDATE...", type=path_type(), nargs=-1, required=True)
@click.option("-o", "--output", type=path_type(), required=True, help="The model file to write.")
@click.option(
    "--report", "report_path", type=path_type(), help="Also write the coordinator's report (.json for plain JSON)."
)
@click.option(
    "--without", multiple=True, metavar="SIGNER|DIGEST", help="Leave one client out (first 8 digits will do)."
)
@click.option("--accept-replacement", is_flag=True, help="Let an update take the place of the one it names.")
@click.option(
    "--public", "public_data", type=path_type(), metavar="DATA",
    help="A table of the server's own, without labels, for methods that learn from such rows too.",
)  # fmt: skip
@map_options
@trust_options
@key_options
@json_option
def fuse(
    task_path: Path, update_paths: tuple[Path, ...], output: Path, report_path: Path | None, without: tuple[str, ...],
    accept_replacement: bool, public_data: Path | None, map_path: Path | None, show_values: bool, allow_unsigned: bool,
    key: Path | None, unsigned: bool, as_json: bool,
) -> None:  # fmt: skip
    """Fuse updates and totals into one model: the server's whole job."""
    from fusionlearn import training

    task = read_task(task_path, allow_unsigned)
    answers = Answers(task, update_paths)
    with (
        naming(answers),
        _public_rows(task, public_data, map_path, show_values) as public,
        progress("fusing", len(answers.paths)) as bar,
        training.watching(lambda epoch: bar.say(f"learning from public rows, {_epoch_text(epoch)}")),
    ):
        answers.step = bar.step
        model, report = run.fuse(
            task, answers, without=without, accept_replacements=accept_replacement, allow_unsigned=allow_unsigned,
            **public,
        )  # fmt: skip
    model = signed(model, key, unsigned)
    report = dataclasses.replace(report, model=file.digest(model))
    if report_path is not None:
        from fusionlearn.report import diagnose

        with progress("looking at each client", len(answers.paths)) as bar:
            answers.step = bar.step
            report = signed(diagnose(task, model, report, answers, answers.names), key, unsigned)
    size = file.write(output, model)
    if report_path is not None:
        _write_report(report_path, report)
    findings = report.findings
    value = {
        "model": str(output), "digest": file.digest(model), "signer": model.signer, "bytes": size,
        "members": [list(member) for member in report.members], "findings": findings,
        "report": str(report_path) if report_path else None,
    }  # fmt: skip
    show_result(as_json, value, _fused_lines(task, model, report, output, size, report_path))


@contextlib.contextmanager
def _public_rows(task: Task, path: Path | None, map_path: Path | None, show_values: bool) -> Iterator[dict[str, Any]]:
    """What `run.fuse` is told of the server's own rows, if there are any."""
    if path is None:
        if map_path is not None or show_values:
            raise click.UsageError("--map and --show-values speak of public rows: give those with --public.")
        yield {}
        return
    source = open_source(path, task.schema, map_path, with_label=False)
    tell_ignored(source)
    with showing(show_values, source, task.schema):
        yield {"public": list(watched(source, run.chunk_rows(task), "reading")), "place": source.place}


def _fused_lines(
    task: Task, model: Model, report: Report, output: Path, size: int, report_path: Path | None
) -> Iterator[str]:
    from fusionlearn.report import general_notices

    findings = report.findings
    clients = len(report.members)
    records = f", {findings['records']} records" if "records" in findings else ""
    yield f"Fused {clients} client{'s' * (clients != 1)}{records} with {task.method.name}: {output} ({sized(size)})."
    learned = {"public_rows": "public rows", "drawn_rows": "rows drawn from their densities"}
    told = [f"{findings[name]} {words}" for name, words in learned.items() if name in findings]
    if told:
        yield f"The average then learned from all clients' networks on {' and '.join(told)}."
    if "penalty" in findings:
        yield f"Penalty {findings['penalty']:.3g} of the records, chosen from the sums."
    if findings.get("repeated"):
        yield f"{findings['repeated']} repeated file(s) counted once."
    if findings.get("left_out"):
        yield f"Left out: {', '.join(name[:12] + '…' for name in findings['left_out'])}."
    if report_path is not None:
        yield from _client_lines(findings["clients"])
    for notice in findings.get("notices", []) if report_path is not None else general_notices(findings):
        yield f"Notice: {notice}"
    yield f"Digest {file.digest(model)[:16]}…, {_signer_text(model)}"
    if report_path is not None:
        yield f"Report for the coordinator alone: {report_path}."


def _client_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    width = max([6, *(len(row["client"]) for row in rows)])
    yield f"{'client':<{width}}  {'records':>8}  {'share':>6}  {'loss':>7}  {'loss without it':>15}"
    for row in rows:
        records = "n/a" if row["records"] is None else str(row["records"])
        share = "n/a" if row["share"] is None else f"{row['share']:.1%}"
        loss = "n/a" if row["loss"] is None else f"{row['loss']:.4f}"
        without = "not available" if row["loss_without"] is None else f"{row['loss_without']:.4f}"
        yield f"{row['client']:<{width}}  {records:>8}  {share:>6}  {loss:>7}  {without:>15}"


def _write_report(path: Path, report: Report) -> None:
    if path.suffix != ".json":
        file.write(path, report)
        return
    plain = {"task": report.task, "model": report.model, "members": report.members, "findings": report.findings}
    with file.replacing(path, "w", encoding="utf-8") as out:
        json.dump(plain, out, indent=1, ensure_ascii=False, allow_nan=False)


@main.command()
@click.argument("task_path", metavar="TASK", type=path_type())
@click.argument("update_paths", metavar="UPDATE...", type=path_type(), nargs=-1, required=True)
@click.option("-o", "--output", type=path_type(), required=True, help="The total file to write.")
@trust_options
@key_options
@json_option
def add(
    task_path: Path, update_paths: tuple[Path, ...], output: Path, allow_unsigned: bool, key: Path | None,
    unsigned: bool, as_json: bool,
) -> None:  # fmt: skip
    """Add updates and totals into one total that knows its members."""
    task = read_task(task_path, allow_unsigned)
    answers = Answers(task, update_paths)
    with naming(answers):
        total = run.add(task, *answers, allow_unsigned=allow_unsigned)
    _write_total(signed(total, key, unsigned), output, as_json)


@main.command()
@click.argument("task_path", metavar="TASK", type=path_type())
@click.argument("total_path", metavar="TOTAL", type=path_type())
@click.argument("update_paths", metavar="UPDATE...", type=path_type(), nargs=-1, required=True)
@click.option("-o", "--output", type=path_type(), required=True, help="The total file to write.")
@trust_options
@key_options
@json_option
def subtract(
    task_path: Path, total_path: Path, update_paths: tuple[Path, ...], output: Path, allow_unsigned: bool,
    key: Path | None, unsigned: bool, as_json: bool,
) -> None:  # fmt: skip
    """Take members out of a total: what it would have been had they never been added."""
    task = read_task(task_path, allow_unsigned)
    total = file.read(total_path, Total, max_bytes=task.max_bytes + MEMBERS_ROOM)
    answers = Answers(task, update_paths)
    with naming(answers):
        rest = run.subtract(task, total, *answers)
    _write_total(signed(rest, key, unsigned), output, as_json)


def _write_total(total: Total, output: Path, as_json: bool) -> None:
    size = file.write(output, total)
    members = [list(member) for member in total.members]
    value = {"total": str(output), "digest": file.digest(total), "members": members, "bytes": size}
    show_result(as_json, value, [f"Wrote {output}: a total of {len(members)} update(s), {sized(size)}."])


# --- the client -----------------------------------------------------------------------------------------------------


@main.command()
@click.argument("task_path", metavar="TASK", type=path_type())
@click.argument("data", type=path_type())
@map_options
@click.option("--draft", type=path_type(), help="Write the drafted site.toml here [default: print it].")
@trust_options
@json_option
def check(
    task_path: Path, data: Path, map_path: Path | None, show_values: bool, draft: Path | None, allow_unsigned: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """List all problems of a site's export at once, and draft a site.toml for it."""
    from fusionlearn import site

    task = read_task(task_path, allow_unsigned)
    site_map = load_map(map_path)
    faults: list[Any] = []
    source: Any = None
    records = None
    try:
        source = site.open_source(data, task.schema, site_map)
        with progress("checking", 1.0) as bar:
            faults, stats = site.faults(source, task.schema, bar.to)
        records = stats.rows
    except DataError as error:
        faults = list(error.faults)
    ignored = list(source.ignored) if source is not None else []
    if source is not None and not as_json:
        tell_ignored(source)
    drafted = site.draft(data, task.schema, faults, site_map) if faults else None
    if drafted is not None and draft is not None:
        with file.replacing(draft, "w", encoding="utf-8") as out:
            out.write(drafted.text)
    if as_json:
        value = {
            "data": str(data), "ok": not faults, "problems": [dataclasses.asdict(fault) for fault in faults],
            "ignored": ignored, "draft": drafted.text if drafted else None, "records": records,
            "remaining": [dataclasses.asdict(fault) for fault in drafted.faults] if drafted else [],
        }  # fmt: skip
        click.echo(json.dumps(value, ensure_ascii=False))
    elif not faults:
        click.echo(f"{data} fits the task: {records} rows. Next: fusionlearn summarize.")
    else:
        for line in _checked_lines(data, faults, drafted, draft):
            click.echo(line)
    if faults and show_values and source is not None:
        show_cells(source, faults)
    if drafted is not None and show_values and watched_by_a_person():
        say("The draft with this site's values, for your eyes only:")
        say(drafted.private)
    if faults:
        sys.exit(1)


def _checked_lines(data: Path, faults: list[Any], drafted: Any, draft: Path | None) -> Iterator[str]:
    yield f"{data} has {len(faults)} problem{'s' * (len(faults) > 1)}:"
    for fault in faults:
        yield f"  - {fault}"
    if drafted is None:
        return
    if draft is not None:
        yield f"A drafted map is in {draft}: complete it and pass it with --map {draft}."
    else:
        yield "A drafted map (keep it as site.toml, complete it, pass it with --map site.toml):"
        yield ""
        yield drafted.text.rstrip()
        yield ""
    if list(drafted.faults) != faults:
        count = len(drafted.faults)
        yield f"With the map as drafted, {count or 'no'} problem{'s' * (count != 1)} would remain{':' * (count > 0)}"
        for fault in drafted.faults:
            yield f"  - {fault}"


@main.command()
@click.argument("task_path", metavar="TASK", type=path_type())
@click.argument("data", type=path_type())
@click.option("-o", "--output", type=path_type(), required=True, help="The update file to write.")
@map_options
@click.option(
    "--hold-out", type=click.FloatRange(0, 1, max_open=True), default=0.0, metavar="SHARE",
    help="Keep this share of the rows back for local evaluation (evaluate --held-out SHARE).",
)  # fmt: skip
@click.option("--replaces", default="", metavar="DIGEST", help="This update corrects an earlier one of yours.")
@click.option(
    "--teacher", metavar="NAME[:SETTINGS]",
    help="Who teaches the student at this site; never sent. See `fusionlearn teachers` [default: forest].",
)  # fmt: skip
@click.option(
    "--checkpoint", type=click.Path(), metavar="FILE",
    help="Where to keep a network's training while it runs, to resume it after an interruption.",
)  # fmt: skip
@click.option("--accept-small-cells", is_flag=True, help="Agree to the leakage page, small cells included, unasked.")
@click.option("--yes", is_flag=True, help="Agree to the leakage page unasked when it names no small cells.")
@trust_options
@key_options
@json_option
def summarize(
    task_path: Path, data: Path, output: Path, map_path: Path | None, show_values: bool, hold_out: float,
    replaces: str, teacher: str | None, checkpoint: str | None, accept_small_cells: bool, yes: bool,
    allow_unsigned: bool, key: Path | None, unsigned: bool, as_json: bool,
) -> None:  # fmt: skip
    """Summarize a table into one update: the client's whole job. Shows what leaves before it is written."""
    task = read_task(task_path, allow_unsigned)
    signing = None if unsigned else own_key(key)
    made = make_update(
        task, data, signing, map_path=map_path, show_values=show_values, hold_out=hold_out, replaces=replaces,
        local={name: value for name, value in (("teacher", teacher), ("checkpoint", checkpoint)) if value},
    )  # fmt: skip
    agree(task, made.page, accept_small_cells, yes, "Write this update?")
    file.write(output, made.update)
    show_result(
        as_json,
        {"update": str(output), **made.to_json()},
        [f"Wrote {output} ({sized(made.size)}), {_signer_text(made.update)} Send it to the coordinator, once."],
    )


@dataclasses.dataclass(frozen=True)
class Made:
    """An update that nobody has agreed to yet, and what its page says."""

    update: Update
    size: int
    page: Any  # privacy.leakage.Page
    passed: run.Passed
    ignored: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "digest": file.digest(self.update), "signer": self.update.signer, "bytes": self.size,
            "leakage": self.page.to_json(), "dropped": self.passed.dropped, "clipped": self.passed.clipped,
            "ignored": list(self.ignored),
        }  # fmt: skip


def make_update(
    task: Task, data: Path, signing: Any, *, map_path: Path | None = None, show_values: bool = False,
    hold_out: float = 0.0, replaces: str = "", local: dict[str, str] | None = None,
) -> Made:  # fmt: skip
    """Summarize a table, and show on one screen what is about to leave."""
    from fusionlearn.privacy.leakage import Witness

    _check_enrolled(task, signing)
    if replaces and not keys.is_signer(replaces):
        raise SettingsError("--replaces takes the whole digest of your earlier update: `fusionlearn inspect` shows it.")
    source = open_source(data, task.schema, map_path)
    tell_ignored(source)
    witness = Witness(task)
    pieces = watched(source, run.chunk_rows(task), "summarizing")
    with showing(show_values, source, task.schema, hold_out), _training_bar():
        passed = run.client_pass(
            task,
            kept_rows(pieces, hold_out, held=False) if hold_out else pieces,
            replaces=replaces,
            place=source.place,
            seen=witness,
            local=local,
        )
    update = passed.update if signing is None else file.sign(passed.update, signing)
    size = len(file.to_bytes(update))
    if size > task.max_bytes:
        raise SettingsError(f"the update takes {size} bytes, the task allows {task.max_bytes}: ask for more max_bytes.")
    page = witness.page(update)
    say(f"About to leave this site: {len(update.arrays)} arrays, {sized(size)}, digest {file.digest(update)[:16]}…")
    say(f"  {_shapes(update)}")
    for line in page.lines():
        say(f"  {line}")
    if passed.dropped:
        say(f"  {passed.dropped} incomplete rows were left out, as the task says.")
    if passed.clipped:
        say(f"  {passed.clipped} values were moved to the end of their range, as the task says.")
    return Made(update, size, page, passed, tuple(source.ignored))


def _shapes(update: Update) -> str:
    """The arrays by name, type and shape, the largest first."""
    by_size = sorted(update.arrays.items(), key=lambda item: -item[1].nbytes)
    shown = [f"{name} {array.dtype}{list(array.shape) if array.shape else ''}" for name, array in by_size]
    more = len(shown) - MOST_ARRAYS
    return ", ".join(shown[:MOST_ARRAYS]) + (f" and {more} more" if more > 0 else "")


def _check_enrolled(task: Task, signing: Any) -> None:
    if task.clients == "open":
        return
    own = keys.public_hex(signing) if signing is not None else ""
    if own not in task.clients:
        raise UpdateError(
            f"your key {keys.fingerprint(own) or '(none)'} is not among the {len(task.clients)} the task lists: "
            f"send the coordinator your .pub file, or sign with --key."
        )


def agree(task: Task, page: Any, accept_small_cells: bool, yes: bool, question: str) -> None:
    """The client agrees to its leakage page, or nothing is written."""
    if page.has_small_cells and task.privacy.small_cells != "allow":
        raise PrivacyError(
            f"the task does not allow classes or categories held by fewer than {SMALL_CELL} people: add records, or "
            f'ask the coordinator for a task with small_cells = "allow". Nothing was written.'
        )
    if accept_small_cells or (yes and not page.has_small_cells):
        return
    try:
        agreed = click.confirm(question, default=False, err=True)
    except click.Abort:  # nobody answered
        say()
        agreed = False
    if not agreed:
        flag = "--accept-small-cells" if page.has_small_cells else "--yes"
        raise PrivacyError(f"not agreed, so nothing was written. To agree unasked, pass {flag}.")


# --- anyone ---------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("path", metavar="FILE", type=path_type())
@json_option
def inspect(path: Path, as_json: bool) -> None:
    """Show a file's header, arrays, sizes, digest and signature: what leaves a site, before it leaves."""
    noun: Noun = file.read(path)
    view = file.describe(noun)
    show_result(as_json, {"file": str(path), "bytes": path.stat().st_size, **view}, _inspected_lines(path, view))


def _inspected_lines(path: Path, view: dict[str, Any]) -> Iterator[str]:
    yield f"{path}: {view['kind']}, {sized(path.stat().st_size)}"
    yield f"digest  {view['digest']}"
    yield f"signer  {view['signer'] or 'not signed'}" + (" (signature is right)" if view["signer"] else "")
    yield "header"
    for name, value in view["header"].items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield f"  {name:<12} {text if len(text) <= 400 else text[:397] + '…'}"
    yield f"arrays ({len(view['arrays'])})"
    for name, array in sorted(view["arrays"].items()):
        shape = "×".join(str(length) for length in array["shape"]) or "one number"
        yield f"  {name:<16} {array['dtype']:<8} {shape:<14} {sized(array['bytes'])}"


@main.command()
@click.argument("model_path", metavar="MODEL", type=path_type())
@click.argument("data", type=path_type())
@click.option("-o", "--output", type=path_type(), required=True, help="The CSV file to write: one line a row.")
@map_options
@trust_options
@json_option
def predict(
    model_path: Path, data: Path, output: Path, map_path: Path | None, show_values: bool, allow_unsigned: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Predict for every row of a table; its label column, if there is one, is not read."""
    model = read_model(model_path, allow_unsigned)
    source = open_source(data, model.schema, map_path, with_label=False)
    tell_ignored(source)
    rows = skipped = 0
    with showing(show_values, source, model.schema), file.replacing(output, "w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        labels = model.schema.labels
        writer.writerow(["row", "prediction", *(f"p({label})" for label in labels)])
        for piece in watched(source, PREDICT_ROWS, "predicting"):
            answers = run.predict(model, piece, place=source.place, first_row=rows + 1)
            for line in _predicted(answers, rows + 1):
                writer.writerow(line)
                skipped += line[1] == ""
            rows += len(next(iter(answers.values())))
        if not rows:
            raise DataError(source.place, [_empty()])
    note = f" {skipped} rows miss a value the task needs and have no prediction." if skipped else ""
    value = {"predictions": str(output), "rows": rows, "skipped": skipped}
    show_result(as_json, value, [f"Wrote {output}: {rows} rows.{note}"])


def _empty() -> Any:
    from fusionlearn.errors import Fault

    return Fault("", "holds no rows")


def _predicted(answers: dict[str, Any], first: int) -> Iterator[list[Any]]:
    if "text" in answers:
        for i, text in enumerate(answers["text"].tolist()):
            yield [first + i, text]
        return
    if "value" in answers:
        for i, value in enumerate(answers["value"].tolist()):
            yield [first + i, "" if value != value else repr(value)]
        return
    for i, (label, chances) in enumerate(zip(answers["label"].tolist(), answers["probability"].tolist(), strict=True)):
        yield [first + i, label, *("" if chance != chance else f"{chance:.6f}" for chance in chances)]


@main.command()
@click.argument("model_path", metavar="MODEL", type=path_type())
@click.argument("data", type=path_type())
@click.option(
    "--held-out", type=click.FloatRange(0, 1, max_open=True), default=0.0, metavar="SHARE",
    help="Only the rows that `summarize --hold-out SHARE` kept back.",
)  # fmt: skip
@map_options
@trust_options
@json_option
def evaluate(
    model_path: Path, data: Path, held_out: float, map_path: Path | None, show_values: bool, allow_unsigned: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Say how good a model is on labelled rows."""
    model = read_model(model_path, allow_unsigned)
    source = open_source(data, model.schema, map_path)
    tell_ignored(source)
    pieces = watched(source, PREDICT_ROWS, "evaluating")
    with showing(show_values, source, model.schema, held_out):
        found = run.evaluate(model, kept_rows(pieces, held_out, held=True) if held_out else pieces, place=source.place)
    shown = [f"{name.replace('_', ' '):<18} {value:.4f}" for name, value in found.items() if isinstance(value, float)]
    dropped = f", {found['dropped']} incomplete rows left out" if found["dropped"] else ""
    show_result(as_json, found, [f"{found['rows']} rows{dropped}", *shown])


@main.command()
@click.argument("model_path", metavar="MODEL", type=path_type())
@click.option("--to", "form", type=click.Choice(["onnx"]), default="onnx", show_default=True, help="The form.")
@click.option("-o", "--output", type=path_type(), required=True, help="The file to write.")
@trust_options
@json_option
def export(model_path: Path, form: str, output: Path, allow_unsigned: bool, as_json: bool) -> None:
    """Write a model for programs without Python: an ONNX graph from raw columns to predictions."""
    from fusionlearn.export import to_onnx

    model = read_model(model_path, allow_unsigned)
    content = to_onnx(model)
    with file.replacing(output, "wb") as out:
        out.write(content)
    value = {"file": str(output), "form": form, "bytes": len(content), "model": file.digest(model)}
    inputs = ", ".join([*model.schema.columns][:6]) + (", …" if len(model.schema.columns) > 6 else "")
    show_result(as_json, value, [f"Wrote {output} ({sized(len(content))}): an ONNX graph of {inputs}."])


@main.command()
@click.option("-o", "--output", type=path_type(), help="Where to write the private key [default: this user's own].")
@json_option
def keygen(output: Path | None, as_json: bool) -> None:
    """Make a key pair: a private key and, beside it, the public one to send to the coordinator."""
    path = output or keys.home() / "key.pem"
    key = keys.generate()
    keys.save(key, path)
    signer = keys.public_hex(key)
    public = path.with_name(path.name + ".pub")
    value = {"private": str(path), "public": str(public), "signer": signer, "fingerprint": keys.fingerprint(signer)}
    show_result(as_json, value, [
        f"Wrote {path} (keep it private) and {public} (send it to the coordinator).",
        f"Fingerprint {keys.fingerprint(signer)}",
    ])  # fmt: skip


@main.command()
@json_option
def methods(as_json: bool) -> None:
    """List the methods that can be named in a task."""
    _table(as_json, "methods", method.available())


@main.command()
@json_option
def encoders(as_json: bool) -> None:
    """List the encoders that can be named in a task."""
    _table(as_json, "encoders", encoder.available())


@main.command()
@json_option
def teachers(as_json: bool) -> None:
    """List the teachers a client may choose from: `summarize --teacher`."""
    from fusionlearn import plugin
    from fusionlearn.teacher import GROUP, TEACHERS

    _table(as_json, "teachers", plugin.available(TEACHERS, GROUP))


@main.command()
@json_option
def networks(as_json: bool) -> None:
    """List the networks that a method or a teacher can name."""
    from fusionlearn import network

    _table(as_json, "networks", network.available())


def _table(as_json: bool, what: str, available: dict[str, str]) -> None:
    """Name, first sentence of the module, settings with their defaults."""
    from fusionlearn import plugin

    rows = [{"name": name, **plugin.describe(place)} for name, place in sorted(available.items())]
    lines = []
    for row in rows:
        lines.append(f"{row['name']:<16} {row['summary']}")
        lines += [f"{'':<16}   {setting}" for setting in row["settings"]]
    show_result(as_json, {what: rows}, lines)


@main.command()
@click.option("--seed", default=0, show_default=True, help="Of the split into clients.")
@click.option("--networks", "with_networks", is_flag=True, help="Pre-train, train, distil, average, broadcast.")
@json_option
def demo(seed: int, with_networks: bool, as_json: bool) -> None:
    """Twenty very uneven clients on scikit-learn's digits: methods against local and pooled models."""
    module: Any
    if with_networks:
        from fusionlearn import demo_networks as module
    else:
        from fusionlearn import demo as module
    with progress("training", None) as bar:
        result = module.rows(seed=seed, progress=bar.say)
    if as_json:
        click.echo(json.dumps({"ok": True, **result}, ensure_ascii=False))
        return
    from rich.console import Console

    module.render(result, Console(width=None if sys.stdout.isatty() else 100))
