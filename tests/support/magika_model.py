# SPDX-License-Identifier: Apache-2.0
"""The real model of the tests: the file-type classifier of the package `magika`, and that package as its own oracle.

`RemoteMagika` is magika itself with one thing replaced: where it would run its model, it asks a service. Everything else
(which windows of a file become the input, thresholds, labels) is the package's own code, so that equal answers mean that
the service computes what the package computes.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def package() -> Any:
    return pytest.importorskip("magika")


def model_path() -> Path:
    return Path(package().__file__).parent / "models" / "standard_v3_3" / "model.onnx"


Predict = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def remote_magika(predict: Predict) -> Any:
    """A `magika.Magika` whose inferences are made by ``predict`` ({name: array} -> {name: array})."""

    class Session:
        def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
            arrays = {name: np.asarray(value, np.int32) for name, value in inputs.items()}
            found = predict(arrays)
            return [found[name] for name in outputs]

    class RemoteMagika(package().Magika):  # type: ignore[misc]
        def _init_onnx_session(self) -> Any:
            return Session()

    return RemoteMagika()


def samples() -> dict[str, bytes]:
    """Small files of more than twenty kinds, made here, the same on every run."""
    noise = np.random.default_rng(11).integers(0, 256, 6000, np.uint8).tobytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("a.txt"), "hello " * 50)
    pixels = b"".join(b"\x00" + noise[row * 48 : row * 48 + 48] for row in range(16))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    wav = (
        b"RIFF"
        + struct.pack("<I", 36 + 4000)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    )
    wav += b"data" + struct.pack("<I", 4000) + noise[:4000]
    elf = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 62, 1) + bytes(40) + noise[:3000]
    pdf = b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n2 0 obj\n<< /Type /Pages /Kids [] /Count 0 >>\n"
    pdf += (
        b"endobj\nxref\n0 3\n0000000000 65535 f \ntrailer\n<< /Size 3 /Root 1 0 R >>\nstartxref\n9\n%%EOF\n"
    )
    python = "import os\n\n\ndef main(argv: list[str]) -> int:\n    for name in argv:\n        print(os.path.join('a', name))\n    return 0\n"
    return {
        "empty": b"",
        "three bytes": b"abc",
        "blank": b" " * 500,
        "noise": noise,
        "zeros": bytes(5000),
        "text": ("The quick brown fox jumps over the lazy dog. " * 40).encode(),
        "python": python.encode() * 6,
        "c": b'#include <stdio.h>\n\nint main(void) {\n    printf("hello\\n");\n    return 0;\n}\n' * 5,
        "rust": b'use std::fs;\n\nfn main() {\n    let text = fs::read_to_string("a").unwrap();\n    println!("{}", text);\n}\n'
        * 4,
        "go": b'package main\n\nimport "fmt"\n\nfunc main() {\n\tfmt.Println("hello")\n}\n' * 4,
        "javascript": b"const a = require('fs');\nfunction b(c) { return c.map((d) => d + 1); }\nmodule.exports = { b };\n"
        * 5,
        "html": b"<!DOCTYPE html>\n<html><head><title>t</title></head><body><p>hello</p></body></html>\n" * 4,
        "css": b"body { margin: 0; color: #333; }\n.a > .b { display: flex; }\n" * 8,
        "json": json.dumps({"rows": [{"id": index, "name": f"n{index}"} for index in range(60)]}).encode(),
        "xml": b'<?xml version="1.0"?>\n<root><item id="1">a</item><item id="2">b</item></root>\n' * 3,
        "csv": b"id,name,value\n"
        + b"".join(b"%d,name%d,%d.5\n" % (index, index, index) for index in range(80)),
        "sql": b"CREATE TABLE a (id INT PRIMARY KEY, name TEXT);\nINSERT INTO a VALUES (1, 'x');\nSELECT * FROM a;\n"
        * 5,
        "shell": b'#!/bin/sh\nset -eu\nfor f in *.txt; do\n  echo "$f"\ndone\n' * 5,
        "toml": b'[package]\nname = "a"\nversion = "0.1.0"\n\n[dependencies]\nserde = "1"\n' * 4,
        "ini": b"[section]\nkey=value\nother=1\n\n[second]\npath=/tmp\n" * 6,
        "markdown": b"# Title\n\nSome *text* with a [link](https://example.com).\n\n- one\n- two\n\n```\ncode\n```\n"
        * 4,
        "zip": archive.getvalue(),
        "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + zlib.compress(noise)[2:-4] + bytes(8),
        "png": png,
        "wav": wav,
        "elf": elf,
        "pdf": pdf,
        "long text": (python * 300).encode(),
    }
