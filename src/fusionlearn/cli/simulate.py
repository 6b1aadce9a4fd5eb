"""Simulate many clients on one machine or a cluster; compare one-shot with traditional federated learning."""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from fusionlearn import encoder, file, partition, plugin, run
from fusionlearn.cli.base import Bar, F, json_option, main, path_type, progress, read_task, say, show_result, sized
from fusionlearn.errors import FileError, SettingsError

SHORT = {"logistic regression": "LR", "ridge regression": "ridge", "boosted trees": "trees"}
WIDE = 100  # characters of a line where the output is no terminal
LEAST_NAME, BETWEEN = 20, 3  # characters of a method's name before it is folded, and between columns


def data_options(function: F) -> F:
    """Whose rows, divided how, computed where."""
    for option in (
        click.option("--map", "map_path", type=path_type(), help="How the table is written (site.toml)."),
        click.option("--out", type=path_type(), help="Results (JSON); a second run goes on from there."),
        click.option("--workers", default=0, type=click.IntRange(0, 1024), help="Workers [default: one a core]."),
        click.option("--runner", default="serial", show_default=True, help="serial, processes, dask or dask:ADDRESS."),
        click.option("--seeds", default=5, show_default=True, type=click.IntRange(1), help="How many seeds."),
        click.option("--clients", default=10, show_default=True, help="How many clients, where the data do not say."),
        click.option("--partition", "kind", default="dirichlet:0.1", show_default=True, help=partition_help()),
    ):
        function = option(function)
    return function


def partition_help() -> str:
    """Every kind, in a line."""
    return "iid, dirichlet:A, dirichlet-client:A, shards:K, quantity:A, feature:SHARE, column:NAME or file:PARTS."


def _rows(text: str, task: Any, map_path: Path | None, divided: partition.Partition) -> dict[str, Any]:
    from fusionlearn.simulate import rows

    return rows.load(text, task, map_path, divide_by=divided.value if divided.kind == "column" else "")


class Results:
    """Finished seeds in a file, so that an interrupted run goes on; without a file, in memory."""

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        self.known: dict[str, Any] = {}
        if path is not None and path.exists():
            try:
                told = json.loads(path.read_text(encoding="utf-8"))
                same = told["settings"] == json.loads(json.dumps(settings))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise FileError(f"{path} does not hold results of a simulation: name another file.") from error
            if not same:
                raise SettingsError(f"{path} holds results of other settings: name another file, or remove it.")
            self.known = told

    def kept(self) -> int:
        """How many seeds the file holds, asked of itself: Ctrl-C may have come just before it was written, or after."""
        if self.path is None or not self.path.exists():
            return 0
        return len(json.loads(self.path.read_text(encoding="utf-8")).get("seeds", {}))

    def keep(self, told: dict[str, Any]) -> None:
        """Write what is finished, whole."""
        self.known = told
        if self.path is not None:
            with file.replacing(self.path, "w", encoding="utf-8") as opened:
                json.dump(told, opened, indent=1)


@contextlib.contextmanager
def going_on(results: Results) -> Iterator[None]:
    """On Ctrl-C, says what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        if results.path is None:
            raise click.Abort("interrupted: nothing was written. With --out FILE, finished seeds are kept.") from None
        count = results.kept()
        told = (
            f"{count} finished seed{'s are' if count > 1 else ' is'} kept in {results.path}"
            if count
            else "no seed was finished"
        )
        raise click.Abort(f"interrupted: {told}; the same command goes on from there.") from None


@main.command("simulate")
@click.argument("task_path", metavar="TASK", type=path_type())
@click.argument("data", metavar="DATA|dataset:NAME")
@data_options
@click.option("--save-partition", type=path_type(), help="Write the first seed's partition (JSON).")
@click.option("--picture", type=path_type(), help="Draw who has what in the first seed (PNG or SVG).")
@json_option
def simulate_command(
    task_path: Path, data: str, kind: str, clients: int, seeds: int, runner: str, workers: int, out: Path | None,
    map_path: Path | None, save_partition: Path | None, picture: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Divide a table over clients, let each summarize its part, fuse, and judge on a quarter held back.

    Results do not depend on the runner. Ctrl-C keeps finished seeds in --out; a second run goes on.
    """
    from fusionlearn.simulate import compare, open_runner

    task = read_task(task_path, allow_unsigned=True)
    question = compare.Question(task, partition.parse(kind), clients, seeds)
    rows = _rows(data, task, map_path, question.partition)
    told = {"task": file.digest(task), "partition": kind, "clients": clients, "data": _digest(rows)}
    results = Results(out, told)
    found: dict[str, Any] = results.known or {"settings": told, "seeds": {}}
    _draw(question, rows, save_partition, picture)
    with going_on(results), open_runner(runner, workers) as made, progress("simulating", seeds) as bar:
        for seed in range(seeds):
            if str(seed) not in found["seeds"]:
                bar.say(f"seed {seed + 1} of {seeds}")
                found["seeds"][str(seed)] = _one_seed(question, rows, seed, made, bar)
                results.keep(found)
            bar.to(seed + 1)
    chosen = {str(seed): found["seeds"][str(seed)] for seed in range(seeds)}
    show_result(as_json, {"settings": told, "seeds": chosen}, _simulated_lines(task, chosen))


def _one_seed(question: Any, rows: Any, seed: int, runner: Any, bar: Bar) -> dict[str, Any]:
    from fusionlearn.simulate import compare, simulate

    parts = compare.split(question, rows, seed)
    share = 1 / len(parts.parts)
    found = simulate(
        question.task, parts.train, parts.parts, runner=runner, seed=seed, step=lambda: bar.to(bar.done + share)
    )
    figures = run.evaluate(found.model, parts.test)
    return {
        "model": file.digest(found.model), "partition": parts.digest, "clients": found.clients, "empty": found.empty,
        "upload_bytes": found.upload_bytes, "client_seconds": found.client_seconds, "elapsed": found.elapsed,
        "figures": {name: value for name, value in figures.items() if value is not None},
    }  # fmt: skip


def _simulated_lines(task: Any, seeds: dict[str, Any]) -> Iterator[str]:
    runs = list(seeds.values())
    taking = _span([entry["clients"] for entry in runs])
    yield f"'{task.name}', {task.method.name}: {taking} clients, {len(runs)} seed{'s' * (len(runs) > 1)}"
    if any(entry["empty"] for entry in runs):
        yield f"{_span([entry['empty'] for entry in runs])} clients got no complete row and took no part"
    yield f"each client sends {sized(statistics.fmean(e['upload_bytes'] / e['clients'] for e in runs))} once"
    for name, value in runs[0]["figures"].items():
        if isinstance(value, float):
            values = [entry["figures"][name] for entry in runs if name in entry["figures"]]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            yield f"  {name.replace('_', ' '):<18} {statistics.fmean(values):.4f}{spread}"


def _span(counts: list[int]) -> str:
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"


def _draw(question: Any, rows: Any, save: Path | None, picture: Path | None) -> None:
    from fusionlearn.simulate import compare

    if save is None and picture is None:
        return
    parts = compare.split(question, rows, 0)
    if save is not None:
        partition.save(
            save, [parts.rows[part] for part in parts.parts], parts.names,
            np.setdiff1d(np.arange(len(next(iter(rows.values())))), parts.rows),
        )  # fmt: skip
    if picture is not None:
        from fusionlearn.simulate import picture as module

        schema = question.task.schema
        module.draw(picture, compare.class_codes(schema, parts.train), parts.parts, parts.names, schema.labels)


def _digest(rows: dict[str, Any]) -> str:
    """A fingerprint of the rows, so that results of other rows are not gone on with."""
    hashed = hashlib.sha256()
    for name in sorted(rows):
        cells = rows[name]
        hashed.update(name.encode())
        if isinstance(cells, list) or np.asarray(cells).dtype.kind in "OU":
            hashed.update("\0".join(map(str, cells)).encode())
        else:
            hashed.update(np.ascontiguousarray(cells).tobytes())
    return hashed.hexdigest()


# --- comparing ------------------------------------------------------------------------------------------------------


@main.command("compare")
@click.argument("task_path", metavar="TASK", type=path_type())
@click.argument("data", metavar="DATA|dataset:NAME")
@data_options
@click.option("--rounds", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Of the rivals.")
@click.option("--epochs", default=1, show_default=True, type=click.IntRange(1), help="A rival's local epochs a round.")
@click.option("--method", "methods", multiple=True, help="Another one-shot method to list; repeat for more.")
@click.option("--rival-network", "networks", multiple=True, help="A network the rivals may use [default: mlp].")
@click.option("--rival-encoder", help="What those networks and pooled models read [default: the task's features].")
@click.option("--network", default="20Mbit,50ms,10%", show_default=True, help="Rate, latency, stragglers.")
@click.option("--html", type=path_type(), help="Write the report as one self-contained page.")
@json_option
def compare_command(
    task_path: Path, data: str, kind: str, clients: int, seeds: int, runner: str, workers: int, out: Path | None,
    map_path: Path | None, rounds: int, epochs: int, methods: tuple[str, ...], networks: tuple[str, ...],
    rival_encoder: str | None, network: str, html: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """One-shot against FedAvg, FedProx and FedAdam on your own rows: accuracy, bytes, time, privacy.

    The rivals run on the same encoder and on a network, on the same partitions and seeds, their learning rates chosen
    on validation rows with five tries each.
    """
    from fusionlearn.simulate import compare, open_runner, page, plots

    task = read_task(task_path, allow_unsigned=True)
    question = compare.Question(
        task, partition.parse(kind), clients, seeds, rounds, methods, networks or ("mlp",), epochs,
        compare.parse_network(network), network_encoder=_encoders(rival_encoder),
    )  # fmt: skip
    rows = _rows(data, task, map_path, question.partition)
    settings = question.settings() | {"data": _digest(rows)}
    results = Results(out, settings)

    def keep(told: dict[str, Any]) -> None:
        results.keep({**told, "settings": settings})

    with going_on(results), open_runner(runner, workers) as made, progress("comparing", 1.0) as bar:

        def tell(what: str, share: float) -> None:
            if what:
                bar.say(what)
            bar.to(share)

        found = compare.compare(question, rows, made, known=results.known or None, done=keep, tell=tell)
    if html is not None:
        with file.replacing(html, "w", encoding="utf-8") as opened:
            opened.write(page.html(found))
    if as_json:
        show_result(True, found, [])
        return
    _print_table(found, plots.share)
    if html is not None:
        say(f"Wrote {html}.")


def _encoders(text: str | None) -> tuple[Any, ...]:
    """One encoder, written NAME[:key=value,…]."""
    if text is None:
        return ()
    return (plugin.parse(encoder.Encoder, text, encoder.ENCODERS, encoder.GROUP),)  # type: ignore[type-abstract]


def _print_table(found: dict[str, Any], share: Callable[[Any, float | None], str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    table = found["table"]
    names = ["rounds", found["metric"], "up", "clients", "network", "to reach", "attack"]
    cells = [dict(zip(names, _cells(found, row, share), strict=True)) for row in table["rows"]]
    shown_names = _that_fit(names, cells, console.width)
    title = f"{found['name']}: one contact or {found['settings']['rounds']} rounds"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    shown.add_column("method", overflow="fold", min_width=LEAST_NAME)
    for name in shown_names:
        shown.add_column(name, justify="right", no_wrap=True)
    for row, texts in zip(table["rows"], cells, strict=True):
        shown.add_row(
            row["name"], *(texts[name] for name in shown_names),
            style="bold" if row["name"] == table["best_one_shot"] and row["kind"] == "one_shot" else "",
            end_section=row is _last_one_shot(table["rows"]),
        )  # fmt: skip
    shown.add_section()
    pooled_by = ", ".join(SHORT.get(name, name) for name in table["pooled_by"])
    for label, value in (
        ("a client alone, mean", table["isolated"]), ("a client alone, best", table["isolated_best"]),
        (f"{table['own']}, pooled", table["pooled_own"]),
        (f"pooled {pooled_by}", table["pooled"]), ("commonest answer", table["majority"]),
    ):  # fmt: skip
        shown.add_row(label, "", share(found, value[0] if value else None))
    console.print(shown)
    for line in _remarks(found, share):
        console.print(line, highlight=False)
    if left := [name for name in names if name not in shown_names]:
        console.print(f"A wider terminal shows besides: {', '.join(left)}.", highlight=False)


def _cells(found: dict[str, Any], row: dict[str, Any], share: Callable[[Any, float | None], str]) -> tuple[str, ...]:
    from fusionlearn.simulate.plots import seconds, size

    spread = share(found, row["spread"]).removesuffix(" %")
    return (
        str(row["rounds"]), f"{share(found, row['value'])} ±{spread}", size(row["up"]), seconds(row["client_seconds"]),
        seconds(row["elapsed_network"]), row["reached"], row["privacy"],
    )  # fmt: skip


def _that_fit(names: list[str], rows: list[dict[str, str]], width: int) -> list[str]:
    """The columns there is room for beside the methods' names; the first two always."""
    kept = list(names)
    for name in ("clients", "to reach", "network", "attack"):
        widths = [max(len(column), *(len(row[column]) for row in rows)) for column in kept]
        if LEAST_NAME + sum(widths) + BETWEEN * (len(kept) + 1) <= width:
            break
        kept.remove(name)
    return kept


def _last_one_shot(rows: list[dict[str, Any]]) -> Any:
    return [row for row in rows if row["kind"] == "one_shot"][-1]


def _remarks(found: dict[str, Any], share: Callable[[Any, float | None], str]) -> Iterator[str]:
    from fusionlearn.simulate.plots import size

    table = found["table"]
    if found["metric_why"]:
        yield f"The metric is {found['metric']}: {found['metric_why']}."
    for row in table["dominated"]:
        yield (
            f"One-shot is behind: {row['name']} has {share(found, row['value'])} after {row['round']} rounds "
            f"and {size(row['up'])}, more in fewer bytes than {table['best_one_shot']}."
        )
    if max(table["empty"]):
        yield f"Up to {max(table['empty'])} clients got no row and took no part."
    if table["leakier"]:
        yield f"{table['best_one_shot']} gives more away than {', '.join(table['leakier'])}: see the column attack."
    if max(table["larger_than_data"]):
        yield f"For {max(table['larger_than_data'])} clients the update is larger than the rows it was made from."
    for name, why in table["refused"].items():
        yield f"{name} is left out: {why}"
    yield (
        "up: bytes a client sends; clients: their computing time, all together; network: elapsed over the one stated; "
        f"to reach: rounds until the rival has what {table['own']} has; attack: AUC of membership inference against "
        "what a server sees (0.5: none)."
    )
