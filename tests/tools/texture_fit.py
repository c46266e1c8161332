"""Fit the coefficients of medddpm/marking/texture.json, and say what they are worth.

    python tests/tools/texture_fit.py [--write]
    python tests/tools/texture_fit.py --measure real/study=scans/ --measure drawn/gan=draws.npy

texture_rows.csv holds what was measured: scans, and draws of small models that learned ds002748.
`--measure` adds rows: of a folder of NIfTI files, or of an array (N, X, Y, Z) at 4 mm.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from medddpm.data.cache import find_scans
from medddpm.io import read_volume
from medddpm.marking import texture
from medddpm.volume import Geometry, Volume

ROWS = Path(__file__).with_name("texture_rows.csv")
FEATURES = ("evenness", "whiteness")
MAIN = "ds002748"  # the study that the models learned: half of what counts as real
THRESHOLD = 0.9
RIDGE = 2.0
Row = dict[str, Any]
Values = NDArray[np.float64]


def measured(what: str, kind: str, source: Path) -> list[Row]:
    """Rows of new scans or draws."""
    if source.suffix == ".npy":
        geometry = np.diag([texture.SPACING] * 3 + [1.0])
        found = [
            (str(n), Volume(x, Geometry(x.shape, geometry))) for n, x in enumerate(np.load(source))
        ]
    else:
        found = [(path.name.split(".")[0], read_volume(path)) for path in find_scans(source)]
    facts = {"what": what, "kind": kind, "how": "file", "held": "0"}
    seen = [(name, texture.features(volume)) for name, volume in found]
    return [facts | {"name": name} | numbers for name, numbers in seen if numbers is not None]


def matrix(rows: list[Row]) -> Values:
    return np.array([[float(row[name]) for name in FEATURES] for row in rows])


def fitted(reals: list[Row], drawn: list[Row]) -> Row:
    """Mean and deviation of the reals, weights of squared distances, never below 0."""
    main = np.array([row["kind"] == MAIN for row in reals])
    share = np.where(main, 0.5 / main.sum(), 0.5 / max((~main).sum(), 1))
    values = matrix(reals)
    mean = share @ values
    deviation = np.sqrt(share @ (values - mean) ** 2)
    x = np.vstack([values, matrix(drawn)])
    x = np.minimum(((x - mean) / deviation) ** 2, texture._FAR**2) / 4
    kinds = [row["kind"] for row in drawn]
    each = np.array([1 / len(set(kinds)) / kinds.count(kind) for kind in kinds])
    weight = 60 * np.concatenate([share, each])
    y = np.repeat([0.0, 1.0], [len(reals), len(drawn)])

    def loss(b: Values) -> float:
        score = x @ b[1:] + b[0]
        return float(
            (weight * (np.logaddexp(0, score) - y * score)).sum() + RIDGE * b[1:] @ b[1:] / 2
        )

    bounds = [(None, None)] + [(0, None)] * len(FEATURES)
    b = minimize(loss, np.zeros(1 + len(FEATURES)), method="L-BFGS-B", bounds=bounds).x
    numbers = np.round(np.stack([mean, deviation, b[1:] / 4], axis=1), 4).tolist()
    names = dict(zip(FEATURES, numbers, strict=True))
    return {"threshold": THRESHOLD, "intercept": round(float(b[0]), 4), "features": names}


def scores(rows: list[Row], fit: Row) -> Values:
    found = [{name: float(row[name]) for name in FEATURES} for row in rows]
    return np.array([texture.probability(one, fit) for one in found])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="append", default=[], metavar="real|drawn/KIND=PATH")
    parser.add_argument("--write", action="store_true", help="replace texture.json")
    asked = parser.parse_args()
    with ROWS.open(encoding="utf-8") as file:
        rows: list[Row] = list(csv.DictReader(file))
    for words in asked.measure:
        (what, kind), source = words.split("=")[0].split("/"), words.split("=", 1)[1]
        rows += measured(what, kind, Path(source))
    reals = [row for row in rows if row["what"] == "real" and row["held"] == "0"]
    held = [row for row in rows if row["what"] == "real" and row["held"] == "1"]
    drawn = [row for row in rows if row["what"] == "drawn"]
    for kind in dict.fromkeys(row["kind"] for row in drawn):
        fit = fitted(reals, [row for row in drawn if row["kind"] != kind])
        mine = scores([row for row in drawn if row["kind"] == kind], fit)
        for name, group in (("ds002748", True), ("other", False)):
            theirs = scores([row for row in held if (row["kind"] == MAIN) == group], fit)
            area = np.mean(mine[None] > theirs[:, None])
            print(f"{kind}, never seen, beside held-out {name}: AUC {area:.2f}", end="; ")
        print(f"called drawn {np.mean(mine > THRESHOLD):.0%} of {len(mine)}")
    fit = fitted(reals, drawn)
    for how in dict.fromkeys(row["how"] for row in held):
        found = scores([row for row in held if row["how"] == how], fit)
        called = int((found > THRESHOLD).sum())
        print(
            f"held-out real, {how}: {called} of {len(found)} called drawn, most {found.max():.2f}"
        )
    if asked.write:
        counts = {
            kind: sum(r["kind"] == kind for r in drawn) for kind in {r["kind"] for r in drawn}
        }
        names = sorted({row["name"] for row in reals if not row["name"].isdigit()})
        told = {"real": names, "real_images": len(reals), "drawn": dict(sorted(counts.items()))}
        target = Path(texture.__file__).with_name("texture.json")
        target.write_text(json.dumps({"fitted_to": told, **fit}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
