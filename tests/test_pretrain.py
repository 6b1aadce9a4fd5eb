"""Pre-training: public rows fill the prior, and clients start from it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import fusionlearn as fl
from fusionlearn import cli, network
from fusionlearn.errors import DataError, SettingsError
from fusionlearn.methods.average import Average
from fusionlearn.methods.distill import Distill
from fusionlearn.pretrain import pretrain

pytest.importorskip("torch")

COLUMNS = {"u": fl.Number(-3.0, 3.0, 0.0, 1.0), "v": fl.Number(-3.0, 3.0, 0.0, 1.0)}
LABEL = fl.ClassLabel("kind", {"a": ["0"], "b": ["1"], "c": ["2"]})


def rows(seed: int, count: int = 200) -> dict[str, Any]:
    x = np.random.default_rng(seed).uniform(-3, 3, (count, 2))
    return {"u": x[:, 0], "v": x[:, 1], "kind": (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 1)}


def task(method: Any, **more: Any) -> fl.Task:
    return fl.new_task("t", COLUMNS, LABEL, method=method, privacy=fl.Privacy("none", "allow"), **more)


@pytest.mark.parametrize("method", [Average(network="mlp:hidden=8", epochs=20), Distill(student="mlp:hidden=8")])
def test_clients_that_learn_nothing_give_back_what_was_learned_in_public(method: Any) -> None:
    made = pretrain(task(method), rows(0))
    assert set(made.prior) == {network.PREFIX + name for name in network.shapes("mlp:hidden=8", made.problem)}
    idle = dataclasses.replace(made, method=dataclasses.replace(method, epochs=0))
    local = {"teacher": "mlp:epochs=1"} if isinstance(method, Distill) else {}
    model, _ = fl.fuse(idle, [fl.summarize(idle, rows(seed, 30), local=local) for seed in (1, 2)])
    for name, learned in made.prior.items():
        np.testing.assert_allclose(model.arrays[name], learned, atol=1e-6)
    assert fl.evaluate(model, rows(3))["accuracy"] > 0.85
    cold = task(dataclasses.replace(method, epochs=0))
    assert fl.evaluate(fl.fuse(cold, [fl.summarize(cold, rows(1), local=local)])[0], rows(3))["accuracy"] < 0.8


def test_it_is_another_task_unsigned_and_always_the_same() -> None:
    signed = fl.sign(task(Average(network="linear")), _key())
    one, two = pretrain(signed, rows(0)), pretrain(signed, rows(0))
    assert fl.digest(one) == fl.digest(two) != fl.digest(signed)
    assert one.signer == ""
    assert fl.digest(pretrain(signed, rows(0), epochs=1)) != fl.digest(one)
    assert one.method == signed.method  # more passes in public change nothing for clients


def _key() -> Any:
    from fusionlearn import keys

    return keys.generate()


def test_public_rows_are_kept_for_the_teachers() -> None:
    made = pretrain(task(Distill(student="linear", public_rows=50, epochs=1)), rows(0))
    assert made.prior["public"].shape == (50, 2) and made.prior["public"].dtype == np.float32
    model, _ = fl.fuse(made, [fl.summarize(made, rows(1), local={"teacher": "linear:epochs=1"})])
    assert model.prior == {}
    with pytest.raises(SettingsError, match=r"public rows are of shape \(50, 2\), \(rows, 1\) expected"):
        fl.new_task(
            "t", {"u": COLUMNS["u"]}, LABEL, method=Distill(student="linear"), privacy="none",
            prior={"public": made.prior["public"]},
        )  # fmt: skip


def test_encoders_learn_before_the_method() -> None:
    images = {"pixels": fl.Vector(64, 0.0, 1.0)}
    data = {"pixels": np.random.default_rng(0).random((40, 64)), "kind": np.arange(40) % 3}
    from fusionlearn import encoder

    patches = encoder.make("patches", {"shape": [8, 8, 1], "filters": 6, "sizes": [3]})
    made = pretrain(
        fl.new_task("t", images, LABEL, encoder=[patches], method=Average(network="linear", epochs=1), privacy="none"),
        data,
    )
    assert {name.partition(".")[0] for name in made.prior} == {"patches", "network"}
    unlabelled = {"pixels": data["pixels"]}
    ridge = pretrain(fl.new_task("t", images, LABEL, encoder=[patches], privacy="none"), unlabelled)
    assert {name.partition(".")[0] for name in ridge.prior} == {"patches"}


def test_what_cannot_be_pretrained_is_a_sentence() -> None:
    with pytest.raises(SettingsError, match="nothing in 't' can be pre-trained: its method 'ridge'"):
        pretrain(task("ridge"), rows(0))
    data = rows(0)
    del data["kind"]
    with pytest.raises(DataError, match="column 'kind': is not in the data; a network needs labels"):
        pretrain(task(Average(network="linear")), data)
    with pytest.raises(DataError, match="holds no complete rows"):
        pretrain(task(Average(network="linear")), {name: cells[:0] for name, cells in rows(0).items()})


def test_the_command_fills_the_prior(tmp_path: Path) -> None:
    fl.write(tmp_path / "task.fusion", task(Average(network="mlp:hidden=8")))
    part = rows(0)
    lines = ["u,v,kind", *(f"{u},{v},{kind}" for u, v, kind in zip(part["u"], part["v"], part["kind"], strict=True))]
    (tmp_path / "public.csv").write_text("\n".join(lines) + "\n")
    given = ["pretrain", str(tmp_path / "task.fusion"), str(tmp_path / "public.csv"), "-o", str(tmp_path / "p.fusion"),
             "--epochs", "2", "--allow-unsigned", "--unsigned", "--json"]  # fmt: skip
    done = CliRunner().invoke(cli.main, given)
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    made = fl.read(tmp_path / "p.fusion", fl.Task)
    assert told["arrays"] == sorted(made.prior) and fl.digest(made) == told["digest"]
    assert fl.digest(made) == fl.digest(pretrain(task(Average(network="mlp:hidden=8")), part, epochs=2))
