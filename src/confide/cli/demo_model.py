# SPDX-License-Identifier: Apache-2.0
"""The demo's model: Google's file-type classifier from the package `magika`, whose own API is the oracle for right answers."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confide.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INPUT = "bytes"
OUTPUT = "target_label"


@dataclass(frozen=True, slots=True)
class FileClassifier:
    """Where the model lies, and how a file becomes its input: the ends of the file, padded, as integers."""

    path: Path
    labels: tuple[str, ...]
    beginning: int
    end: int
    padding: int
    block: int

    @classmethod
    def installed(cls) -> FileClassifier:
        """The model of the installed package; `ConfigurationError` with the install line where it is missing."""
        found = importlib.util.find_spec("magika")
        if found is None or found.origin is None:
            raise ConfigurationError(
                "missing_extra", "the demo's model is not installed", hint="pip install 'confide[demo]'"
            )
        models = sorted(Path(found.origin).parent.glob("models/*/model.onnx"))
        if not models:
            raise ConfigurationError(
                "missing_extra", "the package magika holds no model", hint="pip install --upgrade magika"
            )
        settings = json.loads((models[0].parent / "config.min.json").read_text())
        return cls(
            path=models[0],
            labels=tuple(settings["target_labels_space"]),
            beginning=settings["beg_size"],
            end=settings["end_size"],
            padding=settings["padding_token"],
            block=settings["block_size"],
        )

    def features(self, content: bytes) -> NDArray[np.int32]:
        """The model's input for one file: shape [1, beginning + end]."""
        import numpy as np

        first = content[: self.block].lstrip()[: self.beginning]
        last = content[-self.block :].rstrip()[-self.end :]
        row = np.full(self.beginning + self.end, self.padding, dtype=np.int32)
        row[: len(first)] = np.frombuffer(first, dtype=np.uint8)
        if last:
            row[-len(last) :] = np.frombuffer(last, dtype=np.uint8)
        return row.reshape(1, -1)

    def answer(self, scores: NDArray[np.float32]) -> tuple[str, float]:
        """The label and score that one row of output stands for."""
        best = int(scores.argmax())
        return self.labels[best], float(scores[best])

    def weights(self, model: bytes) -> dict[str, bytes]:
        """The model's initializers: the name of each and its raw bytes."""
        from confide.frameworks import onnx_tables as tables
        from confide.frameworks.protobuf import Budget, read

        budget = Budget(4_000_000)
        top = read(memoryview(model), tables.MODEL, what="model", budget=budget)
        graph = read(top["graph"], tables.GRAPH, what="graph", budget=budget)
        tensors = [read(item, tables.TENSOR, what="tensor", budget=budget) for item in graph["initializer"]]
        return {bytes(tensor["name"]).decode(): bytes(tensor.get("raw_data") or b"") for tensor in tensors}

    def oracle(self, contents: list[bytes]) -> list[tuple[str, float]]:
        """What the package's own API says."""
        from magika import Magika

        library: Any = Magika()
        results = [library.identify_bytes(content) for content in contents]
        return [(str(result.dl.label), float(result.score)) for result in results]


def sample_files(token: bytes) -> dict[str, bytes]:
    """Real files of several kinds, each with the planted token near its beginning."""
    folder = Path(__file__).parent
    text = token.decode()
    record = {"patient": text, "diagnoses": ["I10", "E11.9"], "admitted": "2026-03-02", "ward": 7}
    rows = "\n".join(f"{n},2026-03-{n:02},{70 + n},{n % 3 == 0}" for n in range(1, 29))
    return {
        "record.json": json.dumps(record, indent=2).encode() * 4,
        "visits.csv": f"# {text}\npatient,date,weight,readmitted\n{rows}\n".encode(),
        "letter.html": f"<!DOCTYPE html>\n<html><head><title>{text}</title></head><body><h1>Discharge letter</h1>{'<p>Dear colleague,</p>' * 30}</body></html>".encode(),
        "score.py": f'"""{text}"""\n'.encode() + (folder / "output.py").read_bytes(),
        "query.sql": f"-- {text}\nSELECT ward, count(*) AS n FROM visits WHERE readmitted GROUP BY ward ORDER BY n DESC;\n".encode()
        * 5,
        "pipeline.sh": f'#!/bin/bash\n# {text}\nset -euo pipefail\nfor file in *.csv; do gzip -9 "$file"; done\n'.encode()
        * 3,
    }
